//! A race of four variants and two seeds, the second under way.

use super::*;
use crate::compare::Mode as How;

pub fn race(mode: Mode, last: usize) -> Dashboard {
    let scene = Scene { plan: Some(recording::plan()), dir: PathBuf::new() };
    let mut dashboard = Dashboard::new(mode, Theme::Color, scene);
    for record in recording::race(last) {
        dashboard.apply(Update::Record(Box::new(record)));
    }
    dashboard
}

/// Names in the order of the table.
fn rows(dashboard: &Dashboard) -> Vec<String> {
    let board = dashboard.board();
    board.order().into_iter().map(|variant| board.variants[variant].name.clone()).collect()
}

#[test]
fn frames_of_a_race() {
    let mut dashboard = race(Mode::Train, 120);
    press(&mut dashboard, "←");
    insta::assert_snapshot!("100x30", frame(&dashboard, 100, 30));
    insta::assert_snapshot!("80x24", frame(&dashboard, 80, 24));
    insta::assert_snapshot!("40x12", frame(&dashboard, 40, 12));
    insta::assert_snapshot!("1x1", frame(&dashboard, 1, 1));
}

#[test]
fn variants_are_there_before_their_runs_and_keep_their_colours() {
    let mut dashboard = race(Mode::Train, 0);
    let empty = Dashboard::new(Mode::Train, Theme::Color, Scene { plan: Some(recording::plan()), ..Scene::default() });
    let text = frame(&empty, 100, 30);
    assert_eq!(text.matches("queued").count(), 4, "{text}");
    assert!(text.contains("compare  tiny/methods"), "{text}");
    // A run that begins out of turn changes neither colour nor marker.
    let names: Vec<_> = dashboard.board().variants.iter().map(|variant| variant.name.clone()).collect();
    assert_eq!(names, recording::plan().variants);
    assert_eq!(rows(&dashboard), ["adalora", "lora", "vera", "dora"]);
    press(&mut dashboard, "→");
    assert!(frame(&dashboard, 100, 30).contains("▸■ vera"), "the next row of the table");
}

#[test]
fn words_are_as_sure_as_the_seeds_allow() {
    let first = race(Mode::Train, 0);
    assert_eq!(first.board().lead().as_deref(), Some("adalora is 8.3% below lora on eval"));
    assert_eq!(first.board().spread().as_deref(), Some("1 seed each: spread unknown"));
    assert_eq!(first.board().verdict(1), None);
    let dashboard = race(Mode::Train, recording::STEPS);
    assert_eq!(dashboard.board().lead().as_deref(), Some("adalora is 7.7% below lora on eval"));
    assert_eq!(dashboard.board().spread().as_deref(), Some("± standard deviation of 2 seeds"));
    let verdict = dashboard.board().verdict(2).unwrap();
    assert!(verdict.starts_with("vera by exact match: worse than lora: −"), "{verdict}");
    assert!(dashboard.board().score(0).unwrap().sd.is_some_and(|sd| (0.014..0.015).contains(&sd)));
}

#[test]
fn the_clock_and_the_steps_are_those_of_all_seeds() {
    let dashboard = race(Mode::Train, 120);
    let board = dashboard.board();
    assert_eq!(board.seed(), Some((2, 2)));
    assert_eq!(board.elapsed(), 41.0 + 25.0);
    assert_eq!(board.round().map(Run::progress).max(), Some((120, 200)));
    // Three runs are whole, one ended at 60, three are at 120; one is to come.
    assert!((board.share() - (3.0 * 200.0 + 60.0 + 3.0 * 120.0) / 1600.0).abs() < 1e-12, "{}", board.share());
    assert!(board.eta().is_some_and(|eta| (eta - 16.0).abs() < 1e-9), "{:?}", board.eta());
    assert!(!board.is_over());
    let mut sequence = board.clone();
    sequence.plan = board.plan.clone().map(|plan| crate::compare::Plan { mode: How::Sequence, ..plan });
    assert!(sequence.elapsed() > 4.0 * 25.0);
}

#[test]
fn a_pilot_is_shown_while_it_runs_and_forgotten_after() {
    let scene = Scene { plan: Some(recording::plan()), ..Scene::default() };
    let mut dashboard = Dashboard::new(Mode::Train, Theme::Color, scene);
    let mut tell = |t: f64, event| {
        let record = Record { run: "dora/sweep/optim.adamw.lr=0.001".into(), t, event };
        dashboard.apply(Update::Record(Box::new(record)));
        (frame(&dashboard, 120, 30), dashboard.board().variants[3].runs.len(), dashboard.board().elapsed())
    };
    let step = |step: usize| Event::Step(Step { step, loss: 9.0 - step as f64, ..Step::default() });
    tell(1.0, step(1));
    let (text, runs, elapsed) = tell(2.0, step(2));
    assert!(text.contains("◆ dora     sweep/optim.adamw.lr=0.001 2/2") && text.contains(" · sweep"), "{text}");
    assert_eq!((runs, elapsed), (1, 2.0));
    let ended = Event::RunEnded { status: crate::events::Status::Finished, seconds: 3.0, verify: None };
    let (text, runs, elapsed) = tell(3.0, ended);
    assert!(text.contains("◆ dora     queued") && text.contains("no steps yet"), "{text}");
    assert_eq!((runs, elapsed), (0, 3.0));
    for record in recording::race(120) {
        dashboard.apply(Update::Record(Box::new(record)));
    }
    assert_eq!(dashboard.board().elapsed(), 3.0 + 66.0);
    assert_eq!(dashboard.board().variants.len(), 4);
}

#[test]
fn keys_hide_variants_choose_seeds_and_stretch_the_axis() {
    let mut dashboard = race(Mode::Train, 120);
    let whole = frame(&dashboard, 100, 30);
    for (there, back) in [(" ", " "), ("+", "-"), ("++", "="), ("[", "\x1b"), ("n", "n")] {
        press(&mut dashboard, there);
        assert_ne!(frame(&dashboard, 100, 30), whole, "{there:?} changes nothing");
        press(&mut dashboard, back);
        assert_eq!(frame(&dashboard, 100, 30), whole, "{back:?} does not undo {there:?}");
    }
    press(&mut dashboard, "[");
    assert_eq!(dashboard.run().unwrap().part, place::Part::Seed(0));
    assert_eq!(press(&mut dashboard, "w"), [Effect::Picture]);
}

#[test]
fn a_watched_race_replays_to_the_frames_that_it_drew() {
    let live = frame(&race(Mode::Train, 120), 100, 29);
    let body = |text: &str| text.lines().skip(1).take(27).map(str::to_string).collect::<Vec<_>>();
    let mut watched = race(Mode::Watch, recording::STEPS);
    press(&mut watched, "P");
    assert!(frame(&watched, 100, 30).contains("▶ 00:00:00"));
    // 66 of 82 seconds, at a thirtieth of them a second.
    for _ in 0..242 {
        watched.apply(Update::Tick(0.1));
    }
    press(&mut watched, "P");
    assert_eq!(watched.board().elapsed(), 66.0);
    assert_eq!(body(&frame(&watched, 100, 29)), body(&live));
    watched.apply(Update::Note("written".into()));
    assert!(frame(&watched, 100, 30).contains("written"));
    press(&mut watched, "<.,");
    assert!(watched.board().elapsed() < 59.0, "{}", watched.board().elapsed());
    let code = |code| Update::Key(KeyEvent::from(code));
    watched.apply(code(KeyCode::Home));
    assert_eq!(watched.board().elapsed(), 0.0);
    watched.apply(code(KeyCode::End));
    assert!(watched.board().is_over() || watched.board().elapsed() == 82.0);
    watched.show_as_live(66.0 / 82.0);
    assert_eq!(frame(&watched, 100, 29), live);
}

#[test]
fn a_picture_goes_beside_what_is_looked_at_and_over_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene { plan: None, dir: dir.path().into() };
    let dashboard = Dashboard::new(Mode::Watch, Theme::Color, scene);
    for name in ["dashboard.svg", "dashboard-2.svg"] {
        assert!(picture::save(&dashboard, (40, 12)).ends_with(name));
        assert!(std::fs::read_to_string(dir.path().join(name)).unwrap().ends_with("</svg>\n"));
    }
    let nowhere = Dashboard::new(Mode::Watch, Theme::Color, Scene { plan: None, dir: dir.path().join("none") });
    assert!(picture::save(&nowhere, (40, 12)).starts_with("no picture in "));
}
