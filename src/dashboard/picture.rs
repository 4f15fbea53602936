//! A frame of the dashboard as an SVG picture.
//!
//! Lines, blocks and braille dots are drawn as shapes, so that the picture does not depend on what fonts a reader has.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::path::PathBuf;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use super::Dashboard;
use crate::plot::palette;

/// Pixels of a cell and of the frame around all of them.
const W: f64 = 9.0;
const H: f64 = 19.0;
const PAD: f64 = 15.0;

const PAPER: &str = "#14161b";
const INK: &str = "#d7dae0";

/// What the dashboard draws on a terminal of so many columns and lines.
pub fn svg(dashboard: &Dashboard, (width, height): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width.max(1), height.max(1)));
    let Ok(_) = terminal.draw(|frame| dashboard.view(frame));
    draw(terminal.backend().buffer())
}

/// Writes that picture into the directory of what is looked at, beside earlier ones; says where, or why not.
pub fn save(dashboard: &Dashboard, size: (u16, u16)) -> String {
    let write = || -> std::io::Result<PathBuf> {
        let (path, mut file) = create(dashboard)?;
        std::io::Write::write_all(&mut file, svg(dashboard, size).as_bytes())?;
        Ok(path)
    };
    match write() {
        Ok(path) => format!("the frame is in {}", path.display()),
        Err(error) => format!("no picture in {}: {error}", dashboard.dir.display()),
    }
}

/// `dashboard.svg`, or `dashboard-2.svg` and so on where it is there.
fn create(dashboard: &Dashboard) -> std::io::Result<(PathBuf, std::fs::File)> {
    let mut number = 1;
    loop {
        let name = if number == 1 { "dashboard.svg".into() } else { format!("dashboard-{number}.svg") };
        let path = dashboard.dir.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn draw(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width as usize, buffer.area.height as usize);
    let (width, height) = (columns as f64 * W + 2.0 * PAD, rows as f64 * H + 2.0 * PAD);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"15\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{PAPER}\"/>\n"
    );
    for (row, cells) in buffer.content.chunks(columns).enumerate() {
        let y = PAD + row as f64 * H;
        for (column, cell) in cells.iter().enumerate() {
            let (x, (ink, paper)) = (PAD + column as f64 * W, colors(cell));
            if let Some(paper) = paper {
                rect(&mut svg, [x, y, W, H], &paper, 1.0);
            }
            shape(&mut svg, cell.symbol(), x, y, &ink);
        }
        for run in cells.iter().enumerate().collect::<Vec<_>>().chunk_by(|a, b| same_text(a.1, b.1)) {
            text(&mut svg, run, y);
        }
    }
    svg + "</svg>\n"
}

/// Ink, and paper where it is not the common one.
fn colors(cell: &Cell) -> (String, Option<String>) {
    let (ink, paper) = (css(cell.fg), css(cell.bg));
    if cell.modifier.contains(Modifier::REVERSED) {
        return (paper.unwrap_or_else(|| PAPER.into()), Some(ink.unwrap_or_else(|| INK.into())));
    }
    (ink.unwrap_or_else(|| INK.into()), paper)
}

fn css(color: Color) -> Option<String> {
    let Color::Indexed(index) = color else { return None };
    palette::hex(index)
}

/// Box lines, blocks and braille. Anything else is text.
fn shape(svg: &mut String, symbol: &str, x: f64, y: f64, ink: &str) {
    let Some(c) = symbol.chars().next() else { return };
    let eighth = |first: char| f64::from(c as u32 - first as u32 + 1) / 8.0;
    match c {
        '\u{2801}'..='\u{28ff}' => braille(svg, c as u32 - 0x2800, x, y, ink),
        '▁'..='█' => rect(svg, [x, y + H * (1.0 - eighth('▁')), W, H * eighth('▁')], ink, 1.0),
        '▉'..='▏' => rect(svg, [x, y, W * (1.0 - eighth('▉')), H], ink, 1.0),
        '▕' => rect(svg, [x + W * 0.875, y, W * 0.125, H], ink, 1.0),
        '░' | '▒' | '▓' => rect(svg, [x, y, W, H], ink, 0.25 * f64::from(c as u32 - '░' as u32 + 1)),
        _ => {
            if let Some(path) = strokes(c, x, y) {
                let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{ink}\"/>");
            }
        }
    }
}

fn strokes(c: char, x: f64, y: f64) -> Option<String> {
    let (mx, my, r, b) = (x + W / 2.0, y + H / 2.0, x + W, y + H);
    Some(match c {
        '─' | '━' => format!("M{x:.1} {my:.1}H{r:.1}"),
        '│' => format!("M{mx:.1} {y:.1}V{b:.1}"),
        '┤' => format!("M{mx:.1} {y:.1}V{b:.1}M{x:.1} {my:.1}H{mx:.1}"),
        '┬' => format!("M{x:.1} {my:.1}H{r:.1}M{mx:.1} {my:.1}V{b:.1}"),
        '└' => format!("M{mx:.1} {y:.1}V{my:.1}H{r:.1}"),
        '╭' => format!("M{mx:.1} {b:.1}Q{mx:.1} {my:.1} {r:.1} {my:.1}"),
        '╮' => format!("M{x:.1} {my:.1}Q{mx:.1} {my:.1} {mx:.1} {b:.1}"),
        '╰' => format!("M{mx:.1} {y:.1}Q{mx:.1} {my:.1} {r:.1} {my:.1}"),
        '╯' => format!("M{x:.1} {my:.1}Q{mx:.1} {my:.1} {mx:.1} {y:.1}"),
        _ => return None,
    })
}

/// Bits 0 to 2 and 6 are the left column from the top, 3 to 5 and 7 the right one.
fn braille(svg: &mut String, bits: u32, x: f64, y: f64, ink: &str) {
    const PLACES: [(u8, u8); 8] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)];
    for (bit, (column, row)) in PLACES.into_iter().enumerate() {
        if bits >> bit & 1 == 1 {
            let (cx, cy) = (x + W * (0.25 + 0.5 * f64::from(column)), y + H * (0.125 + 0.25 * f64::from(row)));
            let _ = writeln!(svg, "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"1.35\" fill=\"{ink}\"/>");
        }
    }
}

fn rect(svg: &mut String, [x, y, width, height]: [f64; 4], fill: &str, opacity: f64) {
    let opacity = if opacity < 1.0 { format!(" opacity=\"{opacity}\"") } else { String::new() };
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"{opacity} \
         shape-rendering=\"crispEdges\"/>"
    );
}

fn is_text(cell: &Cell) -> bool {
    let c = cell.symbol().chars().next().unwrap_or(' ');
    c != ' ' && !('\u{2500}'..='\u{259f}').contains(&c) && !('\u{2800}'..='\u{28ff}').contains(&c)
}

fn same_text(a: &Cell, b: &Cell) -> bool {
    is_text(a) && is_text(b) && (a.fg, a.bg, a.modifier) == (b.fg, b.bg, b.modifier)
}

/// A word in one style, stretched to the cells it takes.
fn text(svg: &mut String, cells: &[(usize, &Cell)], y: f64) {
    let Some(&(column, first)) = cells.first().filter(|(_, cell)| is_text(cell)) else { return };
    let words: String = cells.iter().map(|(_, cell)| cell.symbol()).collect();
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let bold = if first.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let (x, y, length) = (PAD + column as f64 * W, y + H * 0.76, cells.len() as f64 * W);
    let ink = colors(first).0;
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" fill=\"{ink}\"{bold}>{words}</text>");
}
