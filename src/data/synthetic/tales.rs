//! Small stories of a few sentences: a plot with people, animals and things put in.

use std::sync::LazyLock;

use super::draw::Draw;
use super::grammar::{Section, capitalised, fill, list, sections};
use super::world::Entity;

static PLOTS: LazyLock<Vec<Section>> = LazyLock::new(|| sections(include_str!("tales.txt")));

/// One story, its sentences separated by spaces.
pub fn tale(draw: &mut Draw) -> String {
    let scene = Entity::invent("tale", draw);
    let ([he, him, his], names) = match draw.chance(50) {
        true => (["she", "her", "her"], list("female")),
        false => (["he", "him", "his"], list("male")),
    };
    let hero = draw.pick(names);
    let fact = |slot: &str| match slot {
        "name" => Some(hero.to_owned()),
        "he" => Some(he.to_owned()),
        "him" => Some(him.to_owned()),
        "his" => Some(his.to_owned()),
        attribute => scene.get(attribute).map(str::to_owned),
    };
    let plot = &PLOTS[draw.below(PLOTS.len())];
    let wordings = plot.lines.iter().map(|step| draw.pick(&step.split(" / ").collect::<Vec<_>>()));
    let sentences: Vec<_> = wordings.filter_map(|wording| fill(wording, fact)).collect();
    sentences.iter().map(|sentence| capitalised(sentence)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wording_can_be_filled() {
        let scene = Entity::invent("tale", &mut Draw::new(0, 0));
        for wording in PLOTS.iter().flat_map(|plot| &plot.lines).flat_map(|step| step.split(" / ")) {
            let known = |slot: &str| {
                let hero = matches!(slot, "name" | "he" | "him" | "his");
                if hero { Some(String::new()) } else { scene.get(slot).map(str::to_owned) }
            };
            assert!(fill(wording, known).is_some(), "{wording}");
        }
    }

    #[test]
    fn stories_have_three_to_seven_sentences_and_differ() {
        let stories: std::collections::BTreeSet<_> = (0..100).map(|stream| tale(&mut Draw::new(0, stream))).collect();
        assert_eq!(stories.len(), 100);
        assert!(stories.iter().all(|story| (3..=9).contains(&story.matches(['.', '?']).count())));
    }
}
