//! "Did you mean": the nearest of the names that would have been right.

/// The option nearest to `word`, if one is near enough to be meant: fewer than three letters
/// inserted, removed, changed or swapped. Letter case makes no difference; an option that
/// equals the word is no advice.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const FAR: usize = 3;
    // A word that is much longer than any name cannot be near one: do not measure it.
    if word.len() > 64 {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let mut best = None;
    let mut best_distance = FAR;
    for option in options {
        // The lengths alone may put it too far away (a letter has at most four bytes).
        if option.len() > 4 * (word.len() + FAR) || 4 * (option.len() + FAR) < word.len() {
            continue;
        }
        let candidate: Vec<char> = option.to_lowercase().chars().collect();
        if candidate.len().abs_diff(word.len()) >= FAR {
            continue;
        }
        let distance = edit_distance(&word, &candidate);
        if distance == 0 {
            return None;
        }
        if distance < best_distance {
            best_distance = distance;
            best = Some(option);
        }
    }
    best
}

/// Letters inserted, removed, changed, or swapped with their neighbour (optimal string alignment).
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let change = row[j] + usize::from(x != y);
            next[j + 1] = change.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn names_the_nearest_option_within_two_edits() {
        let options = ["RUN", "COPY", "EXPOSE", "ENTRYPOINT"];
        assert_eq!(nearest("RUNN", options), Some("RUN"));
        assert_eq!(nearest("cpoy", options), Some("COPY"));
        assert_eq!(nearest("RNU", ["ENV", "RUN"]), Some("RUN"));
        assert_eq!(nearest("ENTRPOINT", options), Some("ENTRYPOINT"));
        assert_eq!(nearest("EXPORTS!", options), None);
        assert_eq!(nearest("RUN", options), None, "an exact match is not the fault");
        assert_eq!(nearest(&"x".repeat(1 << 20), options), None);
    }
}
