//! Templates and word lists: `{slot}` and `{slot:form}` filled from facts, lists or number ranges.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::draw::Draw;

/// A `[heading]` of a rule file and the lines under it, comments and blank lines left out.
pub struct Section {
    /// The names in the heading, separated by commas there.
    pub names: Vec<&'static str>,
    pub lines: Vec<&'static str>,
}

/// Splits a rule file into its sections. Lines before the first heading belong to none.
pub fn sections(text: &'static str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Section { names: heading.split(',').map(str::trim).collect(), lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        }
    }
    sections
}

static LEXICON: LazyLock<BTreeMap<&'static str, Vec<&'static str>>> = LazyLock::new(|| {
    let mut lists: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut name = "";
    for line in include_str!("lexicon.txt").lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let entries = match line.split_once(": ") {
            Some((list, entries)) if !line.starts_with(' ') => {
                name = list;
                entries
            }
            _ => line,
        };
        let entries = entries.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        lists.entry(name).or_default().extend(entries);
    }
    lists
});

/// Entries of a word list; empty if there is no such list.
pub fn list(name: &str) -> &'static [&'static str] {
    LEXICON.get(name).map_or(&[], Vec::as_slice)
}

/// What a slot of a world rule draws: a number of `{low..high}` or an entry of `{list}`.
pub fn drawn(slot: &str, draw: &mut Draw) -> Option<String> {
    if let Some((low, high)) = slot.split_once("..") {
        return Some(draw.between(low.parse().ok()?, high.parse().ok()?).to_string());
    }
    let entries = list(slot);
    (!entries.is_empty()).then(|| draw.pick(entries).to_owned())
}

/// The slots of a template, without their forms, in order.
pub fn slots(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|rest| rest.split(['}', ':']).next())
}

/// Fills a template, or `None` if `fact` does not know one of its slots. A capitalised slot asks for the
/// lower-case fact and capitalises it; the forms are `a` (article), `s` (plural) and `word` (number in words).
pub fn fill(template: &str, mut fact: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut parts = template.split('{');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (slot, rest) = part.split_once('}')?;
        let (slot, form) = slot.split_once(':').unwrap_or((slot, ""));
        let value = match slot.starts_with(char::is_uppercase) {
            true => capitalised(&fact(&slot.to_lowercase())?),
            false => fact(slot)?,
        };
        text.push_str(&inflected(value, form)?);
        text.push_str(rest);
    }
    Some(text)
}

fn inflected(value: String, form: &str) -> Option<String> {
    match form {
        "" => Some(value),
        "a" => Some(with_article(&value)),
        "s" => Some(plural(&value)),
        "word" => value.parse().ok().map(in_words),
        _ => None,
    }
}

pub fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `a` or `an` before a noun phrase of the lexicon (it has no silent h; "uni..." is the only u-exception).
pub fn with_article(phrase: &str) -> String {
    let vowel = phrase.starts_with(|letter: char| "aeiouAEIOU".contains(letter)) && !phrase.starts_with("uni");
    format!("{} {phrase}", if vowel { "an" } else { "a" })
}

pub fn plural(noun: &str) -> String {
    const IRREGULAR: [(&str, &str); 3] = [("mouse", "mice"), ("goose", "geese"), ("sheep", "sheep")];
    if let Some((_, plural)) = IRREGULAR.iter().find(|(singular, _)| *singular == noun) {
        return (*plural).to_owned();
    }
    match noun.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if noun.ends_with(['s', 'x']) || noun.ends_with("ch") || noun.ends_with("sh") => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// A number below a hundred in words; larger ones in digits.
pub fn in_words(number: usize) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    match (number / 10, number % 10) {
        _ if number < 20 => SMALL[number].to_owned(),
        (tens @ 2..10, 0) => TENS[tens].to_owned(),
        (tens @ 2..10, ones) => format!("{}-{}", TENS[tens], SMALL[ones]),
        _ => number.to_string(),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub fn enumerated(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_take_forms_and_capitals() {
        let fact = |slot: &str| match slot {
            "it" => Some("she".to_owned()),
            "animal" => Some("owl".to_owned()),
            "age" => Some("42".to_owned()),
            _ => None,
        };
        let filled = fill("{It} has {animal:a}, {animal:s} and {age:word} years.", fact);
        assert_eq!(filled.as_deref(), Some("She has an owl, owls and forty-two years."));
        assert_eq!(fill("{unknown}", fact), None);
        assert_eq!(fill("{animal:unknown}", fact), None);
    }

    #[test]
    fn nouns_inflect() {
        assert_eq!(["curry", "sandwich", "donkey", "goose", "pie"].map(plural).join(" "), {
            "curries sandwiches donkeys geese pies"
        });
        assert_eq!([0, 13, 20, 99, 100].map(in_words).join(" "), "zero thirteen twenty ninety-nine 100");
        assert_eq!(with_article("university"), "a university");
    }

    #[test]
    fn word_lists_have_no_empty_or_double_entries() {
        for (name, entries) in LEXICON.iter() {
            let distinct: std::collections::BTreeSet<_> = entries.iter().collect();
            assert!(!name.is_empty() && entries.len() > 1 && distinct.len() == entries.len(), "{name}");
        }
    }

    #[test]
    fn no_entry_of_a_word_list_is_broken_across_lines() {
        let lines: Vec<_> = include_str!("lexicon.txt").lines().collect();
        let broken = lines.windows(2).find(|pair| pair[1].starts_with(' ') && !pair[0].ends_with(','));
        assert_eq!(broken, None);
        assert!(list("area").contains(&"university quarter"));
    }

    #[test]
    fn numbers_and_lists_are_drawn() {
        let mut draw = Draw::new(0, 0);
        assert!((3..=5).contains(&drawn("3..5", &mut draw).unwrap().parse().unwrap()));
        assert!(list("colour").contains(&drawn("colour", &mut draw).unwrap().as_str()));
        assert_eq!(drawn("no such list", &mut draw), None);
    }
}
