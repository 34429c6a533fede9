//! "Did you mean": the nearest of the names that would have been right.

/// How many letters apart is too far to be meant.
const FAR: usize = 3;

/// The option nearest to `word`, if one is near enough to be meant: fewer than three letters
/// inserted, removed, changed or swapped. Letter case makes no difference; an option that
/// equals the word is no advice.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.to_lowercase().chars().collect();
    search(word, options, letters, edit_distance::<true>)
}

/// The same for names in which letter case counts. Swapped letters are two changes, as they are in
/// what docker says of variables.
pub(crate) fn nearest_variable<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    search(word, options, |text| text.chars().collect(), edit_distance::<false>)
}

fn search<'a>(
    word: &str,
    options: impl IntoIterator<Item = &'a str>,
    letters: impl Fn(&str) -> Vec<char>,
    distance: impl Fn(&[char], &[char]) -> usize,
) -> Option<&'a str> {
    // A word that is much longer than any name cannot be near one: do not measure it.
    if word.len() > 64 {
        return None;
    }
    let word = letters(word);
    let mut best = None;
    let mut best_distance = FAR;
    for option in options {
        // The lengths alone may put it too far away (a letter has at most four bytes).
        if option.len() > 4 * (word.len() + FAR) || 4 * (option.len() + FAR) < word.len() {
            continue;
        }
        let candidate = letters(option);
        if candidate.len().abs_diff(word.len()) >= FAR {
            continue;
        }
        let distance = distance(&word, &candidate);
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

/// Letters inserted, removed, changed, or with `SWAPS` swapped with their neighbour (optimal string
/// alignment). What is too far is not measured to its end.
fn edit_distance<const SWAPS: bool>(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let change = row[j] + usize::from(x != y);
            next[j + 1] = change.min(row[j + 1] + 1).min(next[j] + 1);
            if SWAPS && i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
        let is_far = |row: &[usize]| row.iter().all(|distance| *distance >= FAR);
        if is_far(&row) && is_far(&before) {
            return FAR;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{nearest, nearest_variable};

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

    #[test]
    fn letter_case_counts_in_variables() {
        let names = ["PATH", "HTTP_PROXY", "http_proxy"];
        assert_eq!(nearest_variable("https_proxy", names), Some("http_proxy"));
        assert_eq!(nearest_variable("HTTPS_PROXY", names), Some("HTTP_PROXY"));
        assert_eq!(nearest_variable("path", names), None);
        assert_eq!(nearest_variable("PaTh", names), Some("PATH"));
        assert_eq!(nearest_variable("APHT", names), None, "two swaps are four changes");
    }
}
