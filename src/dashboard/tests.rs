mod race;

use std::time::{Duration, Instant};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::recording::{self, Script};
use super::*;
use crate::events::{Event, Step, read};

fn replayed(mode: Mode, theme: Theme, records: &[Record]) -> Dashboard {
    let mut dashboard = Dashboard::new(mode, theme, Scene::default());
    for record in records {
        assert_eq!(dashboard.apply(Update::Record(Box::new(record.clone()))), None);
    }
    dashboard
}

/// The recorded run, up to but without its end.
fn recorded() -> Dashboard {
    let mut records = read(recording::path()).unwrap();
    records.pop();
    replayed(Mode::Train, Theme::Color, &records)
}

fn several() -> Vec<Record> {
    let scripts = [
        Script { run: "lora", floor: 0.92, seed: 1 },
        Script { run: "adalora", floor: 0.84, seed: 2 },
        Script { run: "lora_fa", floor: 1.13, seed: 3 },
        Script { run: "vera", floor: 1.31, seed: 4 },
    ];
    scripts.iter().flat_map(Script::records).collect()
}

fn frame(dashboard: &Dashboard, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| dashboard.view(frame)).unwrap();
    terminal.backend().to_string()
}

fn press(dashboard: &mut Dashboard, keys: &str) -> Vec<Effect> {
    let code = |c| match c {
        '\t' => KeyCode::Tab,
        '\n' => KeyCode::Enter,
        '\x1b' => KeyCode::Esc,
        '→' => KeyCode::Right,
        '←' => KeyCode::Left,
        '^' => KeyCode::Up,
        c => KeyCode::Char(c),
    };
    keys.chars().filter_map(|c| dashboard.apply(Update::Key(KeyEvent::from(code(c))))).collect()
}

#[test]
fn frames_of_a_recorded_run() {
    let dashboard = recorded();
    insta::assert_snapshot!("100x30", frame(&dashboard, 100, 30));
    insta::assert_snapshot!("80x24", frame(&dashboard, 80, 24));
    insta::assert_snapshot!("40x12", frame(&dashboard, 40, 12));
    insta::assert_snapshot!("1x1", frame(&dashboard, 1, 1));
}

#[test]
fn frames_of_several_runs() {
    let mut records = several();
    insta::assert_snapshot!("several_mono", frame(&replayed(Mode::Watch, Theme::Mono, &records), 100, 30));
    records.push(recording::ranks("adalora", 12, 200));
    let mut dashboard = replayed(Mode::Train, Theme::Mono, &records);
    press(&mut dashboard, "←");
    insta::assert_snapshot!("ranks", frame(&dashboard, 120, 40));
}

#[test]
fn frames_without_a_heat_map_and_with_popups() {
    let records = read(recording::path()).unwrap();
    let records: Vec<_> = records.into_iter().filter(|r| !matches!(r.event, Event::Norms { .. })).collect();
    let mut dashboard = replayed(Mode::Train, Theme::Color, &records);
    insta::assert_snapshot!("no_norms", frame(&dashboard, 100, 30));
    press(&mut dashboard, "?");
    insta::assert_snapshot!("help", frame(&dashboard, 80, 26));
    press(&mut dashboard, "\x1bq");
    insta::assert_snapshot!("quit", frame(&dashboard, 60, 16));
}

#[test]
fn every_size_can_be_drawn() {
    let mut dashboards = [recorded(), replayed(Mode::Watch, Theme::Mono, &several()), race::race(Mode::Watch, 120)];
    dashboards[1].log_scale = true;
    let empty = Dashboard::new(Mode::Train, Theme::Color, Scene::default());
    for (width, height) in (1..=130).flat_map(|w| [1, 2, 3, 5, 9, 15, 16, 17, 24, 31].map(|h| (w, h))) {
        frame(&dashboards[width as usize % 3], width, height);
        frame(&empty, width, height);
    }
    for keys in ["\t", "\t", "f", "\t", "n", "\t", "<", "f", "?", "\x1bq"] {
        press(&mut dashboards[0], keys);
        press(&mut dashboards[2], keys);
        for size in 1..=60 {
            frame(&dashboards[0], size, 1 + size / 3);
            frame(&dashboards[2], size, 1 + size / 3);
        }
    }
}

#[test]
fn without_colour_there_is_none() {
    let dashboard = replayed(Mode::Train, Theme::Mono, &several());
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    terminal.draw(|frame| dashboard.view(frame)).unwrap();
    let cells = &terminal.backend().buffer().content;
    assert!(cells.iter().all(|cell| (cell.fg, cell.bg) == Default::default()));
    let text = frame(&dashboard, 120, 40);
    assert!(["●", "▲", "■", "◆"].iter().all(|marker| text.matches(marker).count() > 4), "{text}");
}

#[test]
fn keys_ask_the_loop() {
    let mut dashboard = recorded();
    let asked = press(&mut dashboard, "pseq\x1bqxsqk");
    let requests = [Request::TogglePause, Request::Save, Request::Evaluate, Request::Stop, Request::StopNow];
    assert_eq!(asked, requests.map(Effect::Ask));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(dashboard.apply(Update::Key(interrupt)), Some(Effect::Interrupt));
    dashboard.mode = Mode::Watch;
    assert_eq!(press(&mut dashboard, "psqe"), [Effect::Close]);
}

#[test]
fn keys_change_the_view() {
    let mut dashboard = recorded();
    let before = frame(&dashboard, 100, 30);
    for (there, back) in [("f", "f"), ("m", "mm"), ("x", "xx"), ("y", "y"), ("?", "?"), ("/x\n", "\x1b"), ("^", "j")] {
        press(&mut dashboard, there);
        assert_ne!(frame(&dashboard, 100, 30), before, "{there:?} changes nothing");
        press(&mut dashboard, back);
        dashboard.focus = Panel::Loss;
        assert_eq!(frame(&dashboard, 100, 30), before, "{back:?} does not undo {there:?}");
    }
    press(&mut dashboard, "/drop");
    assert!(frame(&dashboard, 100, 30).contains("find: drop"));
    press(&mut dashboard, "\n");
    let log = frame(&dashboard, 100, 30);
    assert!(log.contains("over_length") && !log.contains("checkpoints/"), "{log}");
}

#[test]
fn a_frozen_picture_stays_while_the_run_goes_on() {
    let mut dashboard = recorded();
    press(&mut dashboard, "z");
    let before = frame(&dashboard, 100, 30);
    let step = Step { step: 190, loss: 9.0, ..Step::default() };
    let record = Record { run: "lora".into(), t: 90.0, event: Event::Step(step) };
    dashboard.apply(Update::Record(Box::new(record)));
    assert_eq!(frame(&dashboard, 100, 30), before);
    press(&mut dashboard, "z");
    assert_ne!(frame(&dashboard, 100, 30), before);
}

#[test]
fn a_loss_that_is_no_number_leaves_a_gap_and_the_rest_alone() {
    let mut records = read(recording::path()).unwrap();
    for record in &mut records {
        match &mut record.event {
            Event::Step(step) if step.step % 10 == 0 => step.loss = f64::NAN,
            Event::Step(step) if step.step == 15 => step.loss = f64::INFINITY,
            Event::Eval(eval) if eval.step == 50 => eval.loss = f64::NAN,
            _ => {}
        }
    }
    let dashboard = replayed(Mode::Train, Theme::Color, &records);
    let smooth = dashboard.live.runs[0].smoothed(0.9);
    assert_eq!(smooth.iter().filter(|loss| loss.is_nan()).count(), 21);
    assert!((0.8..1.2).contains(&smooth[198]), "{}", smooth[198]);
    insta::assert_snapshot!("nan", frame(&dashboard, 80, 24));

    records.retain(|r| matches!(r.event, Event::RunStarted(_) | Event::Step(Step { step: 10, .. })));
    assert!(frame(&replayed(Mode::Train, Theme::Color, &records), 100, 30).contains("no steps yet"));
}

#[test]
fn a_resumed_run_takes_back_what_it_did_after_the_checkpoint() {
    let records = read(recording::path()).unwrap();
    let mut dashboard = replayed(Mode::Train, Theme::Color, &records);
    let mut again = records[0].clone();
    let Event::RunStarted(start) = &mut again.event else { panic!() };
    start.resumed_from = 150;
    dashboard.apply(Update::Record(Box::new(again)));
    let run = &dashboard.live.runs[0];
    assert_eq!((run.history.train.len(), run.history.evals.len(), run.ended()), (150, 4, None));
    // Read from the first record again, as after a rewrite of the file: nothing doubles.
    for record in &records {
        dashboard.apply(Update::Record(Box::new(record.clone())));
    }
    let fresh = replayed(Mode::Train, Theme::Color, &records);
    assert_eq!(frame(&dashboard, 100, 30), frame(&fresh, 100, 30));
}

#[test]
fn long_runs_stay_fast() {
    let step = |step: usize| Step { step, loss: 1.0 / step as f64, tokens: 9, step_ms: 1.0, ..Step::default() };
    let record = |i| Record { run: "long".into(), t: i as f64, event: Event::Step(step(i)) };
    let start = Instant::now();
    let mut dashboard = replayed(Mode::Train, Theme::Color, &(1..=5000).map(record).collect::<Vec<_>>());
    for _ in 0..50 {
        frame(&dashboard, 200, 60);
        press(&mut dashboard, "m");
    }
    // Far above what it takes, so that only a change of order fails on a busy machine.
    assert!(start.elapsed() < Duration::from_millis(50 * 100), "{:?}", start.elapsed());
}

#[test]
fn the_picture_is_well_formed() {
    let records = read(recording::path()).unwrap();
    let svg = picture::svg(&replayed(Mode::Train, Theme::Color, &records), (100, 30));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("<circle ") && svg.contains(">lowrank<"));
    let open = svg.matches('<').count();
    assert_eq!(open, svg.matches("/>").count() + 2 * svg.matches("</text>").count() + 2, "an element is not closed");
}
