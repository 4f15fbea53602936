//! Ranks or update norms of modules: kinds down, layers across, one picture for each step.

use serde_json::json;

use super::axes::{Axis, Frame as Plot, HEIGHT, Spacing, Unit, WIDTH, range};
use super::svg::{Anchor, LETTER, Svg, path};
use super::{Figure, identifier, mark};
use crate::compare::group::Group;
use crate::compare::history::{Frame, Measure, Run};
use crate::plot::palette::{HEAT, level};

/// Steps that a slider goes through; of more, these are picked evenly.
const FRAMES: usize = 60;
const ROW: f64 = 26.0;

/// The picture after the last step of the variant's first run that has one, and the others for a slider.
pub fn heat(group: &Group, index: usize) -> Option<Figure> {
    let run = group.runs.iter().find(|run| !run.frames.is_empty())?;
    let last = run.frames.last()?;
    let (kinds, layers) = sides(last);
    let top =
        run.frames.iter().flat_map(|frame| &frame.cells).map(|c| c.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let left = 24.0 + LETTER * kinds.iter().map(|kind| kind.chars().count()).max().unwrap_or(0) as f64;
    let cell = ((WIDTH - left - 20.0) / layers as f64).min(64.0);

    let heading = format!("{}: {}", mark::shortened(&group.name, 28), measured(last.measure));
    let mut svg = Svg::new(WIDTH, 72.0 + ROW * kinds.len() as f64 + 50.0);
    svg.text([12.0, 22.0], Anchor::Start, "title", &heading);
    svg.text([WIDTH - 12.0, 22.0], Anchor::End, "dim step", &format!("step {}", last.step));
    layers_above(&mut svg, left, cell, layers);
    for (row, kind) in kinds.iter().enumerate() {
        svg.text([left - 8.0, 58.0 + ROW * row as f64 + 17.0], Anchor::End, "", kind);
    }
    for (i, value) in grid(last, &kinds, layers).into_iter().enumerate() {
        let at = [left + cell * (i % layers) as f64, 58.0 + ROW * (i / layers) as f64];
        draw(&mut svg, at, cell, i, value, top);
    }
    scale(&mut svg, left, 58.0 + ROW * kinds.len() as f64 + 18.0, last.measure, top);
    let frames = frames(run, last.measure, &kinds, layers, top);
    let caption = format!("Seed {}. Each row is a kind of module, each column a layer.", run.seed);
    let id = format!("modules-{index}-{}", identifier(&group.name));
    Some(Figure { id, svg: svg.finish(&heading), caption, frames })
}

/// Active ranks of all modules together, by step; none where no variant has ranks at more than one step.
pub fn totals(groups: &[Group]) -> Option<Figure> {
    let total = |frame: &Frame| (frame.step as f64, frame.cells.iter().map(|cell| cell.value).sum::<f64>());
    let ranked = |run: &&Run| run.frames.iter().filter(|frame| frame.measure == Measure::Rank).count() > 1;
    let curve = |group: &Group| group.runs.iter().find(ranked).map(|run| run.frames.iter().map(total).collect());
    let curves: Vec<Option<Vec<(f64, f64)>>> = groups.iter().map(curve).collect();
    let points = || curves.iter().flatten().flatten();
    let end = points().map(|point| point.0).fold(1.0, f64::max);
    let [_, high] = range(points().map(|point| point.1), 0.06)?;
    let x = Axis { title: "optimizer steps".into(), unit: Unit::Count, range: [0.0, end], spacing: Spacing::Linear };
    let y = Axis {
        title: "active ranks, all modules".into(),
        unit: Unit::Count,
        range: [0.0, high],
        spacing: Spacing::Linear,
    };
    let mut svg = Svg::new(WIDTH, HEIGHT);
    let heading = "Rank budget by step";
    svg.text([12.0, 22.0], Anchor::Start, "title", heading);
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    let height = mark::legend(&mut svg, &names, [12.0, WIDTH - 12.0, 44.0]);
    let frame = Plot::draw(&mut svg, 38.0 + height, x, y);
    for (i, curve) in curves.iter().enumerate().filter_map(|(i, curve)| Some((i, curve.as_ref()?))) {
        svg.raw(&format!("<g class=\"{}\" data-variant=\"{i}\">", mark::class(i)));
        let points: Vec<_> = curve.iter().map(|&(x, y)| frame.at([x, y])).collect();
        let (d, dash) = (path(&points), mark::dash(i));
        svg.raw(&format!("<path d=\"{d}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\"{dash}/>"));
        points.iter().for_each(|&at| svg.raw(&mark::marker(i, at, 3.5)));
        svg.raw("</g>");
    }
    let caption = "Of the first seed of each variant whose method moves ranks.".into();
    Some(Figure { id: "rank-budget".into(), svg: svg.finish(heading), caption, frames: None })
}

fn measured(measure: Measure) -> &'static str {
    match measure {
        Measure::Rank => "active ranks",
        Measure::UpdateNorm => "size of the update ‖s·BA‖",
    }
}

/// Kinds in the order in which the model names them, and the number of layers.
fn sides(frame: &Frame) -> (Vec<String>, usize) {
    let mut kinds: Vec<String> = Vec::new();
    for cell in &frame.cells {
        if !kinds.contains(&cell.kind) {
            kinds.push(cell.kind.clone());
        }
    }
    (kinds, frame.cells.iter().map(|cell| cell.layer + 1).max().unwrap_or(1))
}

/// Row by row; none where there is no such module.
fn grid(frame: &Frame, kinds: &[String], layers: usize) -> Vec<Option<f64>> {
    let mut grid = vec![None; kinds.len() * layers];
    for cell in &frame.cells {
        let row = kinds.iter().position(|kind| *kind == cell.kind);
        let place = row.filter(|_| cell.layer < layers).map(|row| row * layers + cell.layer);
        if let Some(place) = place {
            grid[place] = Some(cell.value);
        }
    }
    grid
}

fn text(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn layers_above(svg: &mut Svg, left: f64, cell: f64, layers: usize) {
    svg.text([left - 8.0, 50.0], Anchor::End, "dim", "layer");
    let every = (3.0 * LETTER / cell).ceil().max(1.0) as usize;
    for layer in (0..layers).step_by(every) {
        svg.text([left + cell * (layer as f64 + 0.5), 50.0], Anchor::Middle, "dim", &layer.to_string());
    }
}

fn draw(svg: &mut Svg, [x, y]: [f64; 2], cell: f64, i: usize, value: Option<f64>, top: f64) {
    let Some(value) = value else { return };
    let (level, width, height) = (level(value / top), (cell - 1.0).max(1.0), ROW - 1.0);
    svg.raw(&format!(
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"h{level}\" data-cell=\"{i}\"/>"
    ));
    if cell >= 34.0 {
        let (x, y, text) = (x + cell / 2.0, y + 17.0, text(value));
        svg.raw(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" class=\"i{level}\" data-cell=\"{i}\">{text}</text>"
        ));
    }
}

/// What the colours stand for.
fn scale(svg: &mut Svg, left: f64, y: f64, measure: Measure, top: f64) {
    for i in 0..HEAT.len() {
        let x = left + 20.0 * i as f64;
        svg.raw(&format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"20\" height=\"10\" class=\"h{i}\"/>"));
    }
    let right = left + 20.0 * HEAT.len() as f64;
    svg.text([left, y + 25.0], Anchor::Start, "dim", "0");
    svg.text([right, y + 25.0], Anchor::End, "dim", &text(top));
    let what = if measure == Measure::Rank { "rank" } else { "Frobenius norm" };
    svg.text([right + 10.0, y + 9.0], Anchor::Start, "dim", what);
}

/// `{steps, top, levels, values}` for the page's script; none for a single step.
fn frames(run: &Run, measure: Measure, kinds: &[String], layers: usize, top: f64) -> Option<String> {
    let all: Vec<_> = run.frames.iter().filter(|frame| frame.measure == measure).collect();
    if all.len() < 2 {
        return None;
    }
    let count = all.len().min(FRAMES);
    let picked: Vec<_> = (0..count).map(|i| all[i * (all.len() - 1) / (count - 1)]).collect();
    let steps: Vec<_> = picked.iter().map(|frame| frame.step).collect();
    let cell = |value: Option<f64>| value.map(|value| json!([level(value / top), text(value)]));
    let cells: Vec<Vec<_>> =
        picked.iter().map(|frame| grid(frame, kinds, layers).into_iter().map(cell).collect()).collect();
    // In a page nothing in a script may look like its end.
    Some(json!({ "steps": steps, "cells": cells }).to_string().replace('<', "\\u003c"))
}
