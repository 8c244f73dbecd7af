//! What a misspelt name may have meant, for every message that refuses an unknown one.

/// A name further away than this was meant as something else.
const DISTANCE_MAX: usize = 3;
/// Longer names are nobody's typing mistake.
const TYPED_CHARS_MAX: usize = 80;
/// Known names listed when none is near.
const LISTED_MAX: usize = 24;

/// The known name that is nearest to what was typed, if one is near.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = typed.chars().take(TYPED_CHARS_MAX + 1).count();
    if length > TYPED_CHARS_MAX {
        return None;
    }
    // Half of a short name would be another name.
    let most = (length / 2).min(DISTANCE_MAX);
    let near = known.into_iter().map(|name| (distance(name, typed), name)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, _)| *distance <= most).map(|(_, name)| name)
}

/// `did you mean "after"?`, or what is known.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = nearest(typed, known.clone()) {
        return format!("did you mean {name:?}?");
    }
    let names: Vec<&str> = known.into_iter().take(LISTED_MAX).collect();
    if names.is_empty() { "none is known here".to_owned() } else { format!("known: {}", names.join(", ")) }
}

/// Edit distance (Wagner and Fischer 1974).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_near_and_lists_the_rest() {
        let known = ["after", "resume", "limit"];
        assert_eq!(nearest("aftr", known), Some("after"));
        assert_eq!(nearest("Limit", known), Some("limit"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("a", known), None, "one letter is no typing mistake");
        assert_eq!(nearest(&"a".repeat(100_000), known), None);
        assert_eq!(did_you_mean("resum", known), "did you mean \"resume\"?");
        assert_eq!(did_you_mean("colour", known), "known: after, resume, limit");
        assert_eq!(did_you_mean("colour", []), "none is known here");
    }
}
