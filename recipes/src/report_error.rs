//! How an error looks: what is wrong first, then the place in its source, then what to do.

use std::io::Write;
use std::process::ExitCode;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use lowrank::Error;
use lowrank::error::InputError;
use lowrank::events::Color;

use crate::stdout;

/// Writes the error to stderr and returns the exit code that goes with it.
pub fn report(error: &Error, color: Color) -> ExitCode {
    if stdout::is_closed(error) {
        return ExitCode::SUCCESS;
    }
    let text = render(error, color.enabled());
    // Nobody is left to tell when stderr is closed too.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(error.exit_code())
}

/// A warning that stops nothing.
pub fn warn(problem: &InputError, color: Color) {
    let text = render_one(problem, Level::WARNING, &renderer(color.enabled()));
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The error as text.
pub fn render(error: &Error, colored: bool) -> String {
    let renderer = renderer(colored);
    match error {
        Error::Input(problem) => render_one(problem, Level::ERROR, &renderer),
        Error::Inputs(problems) => {
            let each = problems.iter().map(|problem| render_one(problem, Level::ERROR, &renderer));
            let mut text = each.collect::<Vec<_>>().join("\n\n");
            if problems.len() > 1 {
                let count = format!("{} problems, all listed above", problems.len());
                text += &format!("\n\n{}", renderer.render(&[Group::with_title(Level::ERROR.primary_title(count))]));
            }
            text
        }
        other => renderer.render(&[Group::with_title(Level::ERROR.primary_title(other.to_string()))]),
    }
}

fn renderer(colored: bool) -> Renderer {
    let renderer = if colored { Renderer::styled() } else { Renderer::plain() };
    renderer.decor_style(DecorStyle::Unicode)
}

fn render_one<'a>(problem: &'a InputError, level: Level<'a>, renderer: &Renderer) -> String {
    let group = match (&problem.text, &problem.span) {
        (Some(text), Some(span)) => {
            let mark = AnnotationKind::Primary.span(span.clone()).label(label(problem));
            let snippet = Snippet::source(text).path(origin(problem)).annotation(mark);
            level.primary_title(&*problem.what).element(snippet)
        }
        _ => Group::with_title(level.primary_title(InputError { hint: None, ..problem.clone() }.to_string())),
    };
    let mut text = renderer.render(&[group]);
    if let Some(hint) = &problem.hint {
        let group = Group::with_title(Level::HELP.with_name("hint").primary_title(&**hint));
        text += &format!("\n{}", renderer.render(&[group]));
    }
    text
}

fn origin(problem: &InputError) -> String {
    match (&problem.file, &problem.place) {
        (Some(file), _) => file.display().to_string(),
        (None, Some(("--set", _))) => "--set".into(),
        (None, _) => "recipe".into(),
    }
}

fn label(problem: &InputError) -> Option<String> {
    let expected = problem.expected.as_ref().map(|expected| format!("expected {expected}"));
    let found = problem.found.as_ref().map(|found| format!("found {found}"));
    let parts: Vec<String> = found.into_iter().chain(expected).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_with_a_span_is_shown_in_its_source() {
        let text = "[adapter.lora]\nalhpa = 16\n";
        let problem = InputError::new("unknown key `alhpa` in [adapter.lora]")
            .file("my.toml")
            .line(2)
            .hint("did you mean `alpha`?")
            .span(text, 15..20);
        let shown = render(&problem.into(), false);
        assert!(shown.starts_with("error: unknown key `alhpa` in [adapter.lora]\n"), "{shown}");
        for part in ["my.toml:2:1", "alhpa = 16", "hint: did you mean `alpha`?"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        assert!(!shown.contains('\x1b'));
    }

    #[test]
    fn other_errors_are_one_line_and_a_hint() {
        let problem = Error::input("no usable rows").file("rows.csv").found("0 rows").hint("look at max_len");
        assert_eq!(
            render(&problem.into(), false),
            "error: rows.csv: no usable rows; found 0 rows\nhint: look at max_len"
        );
        assert_eq!(render(&Error::Failed("no memory".into()), false), "error: no memory");
        assert!(render(&Error::Failed("no memory".into()), true).contains('\x1b'));
    }

    #[test]
    fn control_characters_of_hostile_input_do_not_reach_the_terminal() {
        let shown = render(&Error::input("bad name \x1b[2J").tensor("a\x1b]0;x\x07").into(), false);
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown:?}");
    }
}
