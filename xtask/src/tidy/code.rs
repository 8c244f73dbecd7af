//! Rust text reduced to what the rules may judge: no comments, no contents of literals, no tests.
//!
//! A scanner, not a parser: it knows just enough of the language not to take a word in a string for code. Every function
//! keeps the lines where they are.

/// The same text with comments and the contents of string and character literals replaced by spaces.
pub(super) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at).unwrap_or(at);
        if end > at {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// The same code with every item under `#[cfg(test)]` replaced by spaces.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let end = start + MARK.len() + item_end(&rest[start + MARK.len()..]);
        out.push_str(&rest[..start]);
        out.extend(rest[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[end..];
    }
    out + rest
}

/// The length of the block that `code` opens with, if its first brace comes before a semicolon outside brackets.
pub(super) fn block(code: &str) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return None,
            '{' if depth == 0 => return Some((at, closing_brace(&code[at..]).map_or(code.len(), |end| at + end))),
            _other => {}
        }
    }
    None
}

/// The words of the code with the byte at which each begins: identifiers, keywords, numbers.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).map(|word| (word.as_ptr().addr() - code.as_ptr().addr(), word))
}

/// The line, counted from 1, of a byte of the text.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].bytes().filter(|byte| *byte == b'\n').count()
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn item_end(code: &str) -> usize {
    match block(code) {
        Some((_open, close)) => close + 1,
        None => code.find(';').map_or(code.len(), |at| at + 1),
    }
    .min(code.len())
}

/// The distance from an opening brace to the one that closes it.
fn closing_brace(code: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at),
            '}' => depth = depth.saturating_sub(1),
            _other => {}
        }
    }
    None
}

/// Where the literal or comment that starts at `at` ends, if one does.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match (chars[at], next) {
        ('/', Some('/')) => Some(find(chars, at, |c| c == '\n')),
        ('/', Some('*')) => Some(block_comment_end(chars, at)),
        ('"', _) => Some(quoted_end(chars, at + 1, '"')),
        ('\'', Some('\\')) => Some(quoted_end(chars, at + 1, '\'')),
        ('\'', _) if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        ('r', Some('"' | '#')) => raw_string_end(chars, at),
        _other => None,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| stop(*c)).map_or(chars.len(), |distance| from + distance)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _other => at += 1,
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], from: usize, quote: char) -> usize {
    let mut at = from;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `r"…"` or `r#"…"#`, also after a `b` or `c`; not a raw identifier, not a word that ends in `r`.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| chars[before]);
    let starts_word = before.is_none_or(|c| !is_word(c) || matches!(c, 'b' | 'c'));
    let quote = find(chars, at + 1, |c| c != '#');
    if !starts_word || chars.get(quote) != Some(&'"') {
        return None;
    }
    let hashes = quote - at - 1;
    let closes = |end: usize| chars[end] == '"' && chars[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    let end = (quote + 1..chars.len()).find(|end| closes(*end));
    Some(end.map_or(chars.len(), |end| end + 1 + hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_comments_and_literals_are_no_code() {
        for text in [
            "// tokio",
            "/* a /* tokio */ tokio */",
            r#"let a = "tokio \" tokio";"#,
            r##"let a = r#"tokio " tokio"#;"##,
            r##"let a = br#"tokio " tokio"#;"##,
        ] {
            let code = blank(text);
            assert!(!code.contains("tokio"), "{code}");
            assert_eq!(code.chars().count(), text.chars().count());
        }
    }

    #[test]
    fn code_after_a_literal_stays() {
        for text in ["'{' + tokio", r"'\'' + tokio", "x::<'a>(tokio)", "\"\" + tokio", "r#type + tokio", "/**/ tokio"] {
            let code = blank(text);
            assert!(code.contains("tokio"), "{code}");
            assert!(!code.contains('{'), "{code}");
        }
    }

    #[test]
    fn tests_are_cut_out_and_lines_stay() {
        let code = "a\n#[cfg(test)]\nmod tests {\n fn b() { c }\n}\nd\n#[cfg(test)]\nmod other;\ne";
        let cut = without_tests(code);
        let words: Vec<&str> = words(&cut).map(|(_at, word)| word).collect();
        assert_eq!(words, ["a", "d", "e"]);
        assert_eq!(line_of(&cut, cut.find('d').expect("d is there")), 6);
    }

    #[test]
    fn a_block_is_found_past_brackets() {
        let code = "f(a: [u8; 4]) -> X { g({}) } h";
        let (open, close) = block(code).expect("there is a block");
        assert_eq!(&code[open..=close], "{ g({}) }");
        assert!(block("f(a: [u8; 4]); {}").is_none());
    }
}
