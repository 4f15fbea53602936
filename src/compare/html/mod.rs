//! `report.html`: one file, complete without its script, that asks nothing of the network.

mod environment;
mod recipes;
mod results;
mod samples;

use super::figure::{Figure, escape, page as colors};
use super::{Comparison, Mode};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

pub fn page(comparison: &Comparison, figures: &[Figure]) -> String {
    let summary = &comparison.summary;
    let groups = &comparison.groups;
    let of = |prefix: &str| figures.iter().filter(|figure| figure.id.starts_with(prefix)).collect::<Vec<_>>();
    let modules = [of("rank-"), of("modules-")].concat();
    let sections = [
        section("Result", &results::result(summary)),
        section("To bear in mind", &notes(&summary.notes)),
        section("Loss", &format!("{}{}", toggles(comparison), plots(&of("loss-")))),
        section("Quality and cost", &plots(&of("quality-"))),
        section("Modules", &plots(&modules)),
        section("Recipes: what differs", &recipes::differences(groups, comparison.reference)),
        section("Generated text", &samples::samples(groups)),
        section("Runs", &results::runs(summary)),
        section("Environment", &environment::environment(groups)),
    ];
    let title = escape(&summary.name);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{}{STYLE}</style>\n</head>\n<body>\n<header><h1>{title}</h1><p>{}</p></header>\n\
         <main>\n{}</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        colors(),
        escape(&subtitle(comparison)),
        sections.concat()
    )
}

fn subtitle(comparison: &Comparison) -> String {
    let variants = comparison.groups.len();
    let runs: usize = comparison.groups.iter().map(|group| group.runs.len()).sum();
    let mode = match comparison.summary.mode {
        Some(Mode::Race) => ", side by side in one process",
        Some(Mode::Sequence) => ", one after the other",
        None => "",
    };
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!(
        "{} in {}{mode}; reference: {}; lowrank {}",
        plural(variants, "variant"),
        plural(runs, "run"),
        comparison.summary.reference,
        env!("CARGO_PKG_VERSION")
    )
}

/// Nothing where there is nothing to show.
fn section(title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section>\n<h2>{title}</h2>\n{body}</section>\n") }
}

fn notes(notes: &[String]) -> String {
    let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
    format!("<ul>\n{items}</ul>\n")
}

/// Only the script can do what they promise, so it shows them.
fn toggles(comparison: &Comparison) -> String {
    if comparison.groups.len() < 2 {
        return String::new();
    }
    let each = comparison.groups.iter().enumerate().map(|(i, group)| {
        let name = escape(&group.name);
        format!("<label><input type=\"checkbox\" checked data-toggle=\"{i}\"> {name}</label>\n")
    });
    format!("<p class=\"toggles\" hidden>Show: {}</p>\n", each.collect::<String>())
}

fn plots(figures: &[&Figure]) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let each = figures.iter().map(|figure| {
        let slider = figure.frames.as_ref().map_or_else(String::new, |frames| {
            format!(
                "<label class=\"slider\" hidden>Step <input type=\"range\"> <output></output></label>\n\
                 <script type=\"application/json\">{frames}</script>\n"
            )
        });
        let caption = escape(&figure.caption);
        format!(
            "<figure id=\"{}\">\n{}\n{slider}<figcaption>{caption}</figcaption>\n</figure>\n",
            figure.id, figure.svg
        )
    });
    format!("<div class=\"plots\">\n{}</div>\n", each.collect::<String>())
}

/// Rows below a header; cells are markup.
fn table(head: &[String], rows: &[Vec<String>], class: &str) -> String {
    let cells = |row: &[String], tag: &str| row.iter().map(|cell| format!("<{tag}>{cell}</{tag}>")).collect::<String>();
    // The first cell of a row names it.
    let row = |row: &Vec<String>| match row.split_first() {
        Some((first, rest)) => format!("<tr><th scope=\"row\">{first}</th>{}</tr>\n", cells(rest, "td")),
        None => String::new(),
    };
    let body: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\"><table class=\"{class}\">\n<thead><tr>{}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n",
        cells(head, "th")
    )
}
