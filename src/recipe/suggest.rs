//! "Did you mean": the nearest known name to one that is not known.

/// What other trainers call our keys.
const ELSEWHERE: [(&str, &str); 21] = [
    ("r", "rank"),
    ("lora_r", "rank"),
    ("lora_rank", "rank"),
    ("lora_alpha", "alpha"),
    ("lora_dropout", "dropout"),
    ("use_rslora", "rslora"),
    ("init_lora_weights", "init"),
    ("target_modules", "targets"),
    ("exclude_modules", "exclude"),
    ("layers_to_transform", "layers"),
    ("learning_rate", "lr"),
    ("batch_size", "batch"),
    ("per_device_train_batch_size", "batch"),
    ("gradient_accumulation_steps", "accumulate"),
    ("num_train_epochs", "epochs"),
    ("num_epochs", "epochs"),
    ("max_seq_length", "max_len"),
    ("seq_len", "max_len"),
    ("max_length", "max_len"),
    ("packing", "pack"),
    ("max_grad_norm", "clip"),
];

/// Below this Jaro–Winkler similarity two names are strangers.
const SIMILAR: f64 = 0.8;

/// The candidate that was most likely meant by `word`, if any is close.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let translated = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours);
    candidates
        .into_iter()
        .map(|name| (if Some(name) == translated { 1.0 } else { similarity(word, name) }, name))
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn similarity(word: &str, name: &str) -> f64 {
    strsim::jaro_winkler(&word.to_lowercase(), &name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_typo_the_foreign_name_and_nothing_else() {
        let keys = ["rank", "alpha", "dropout", "targets", "layers"];
        assert_eq!(nearest("alhpa", keys), Some("alpha"));
        assert_eq!(nearest("Rank", keys), Some("rank"));
        assert_eq!(nearest("target_modules", keys), Some("targets"));
        assert_eq!(nearest("r", keys), Some("rank"));
        assert_eq!(nearest("colour", keys), None);
    }
}
