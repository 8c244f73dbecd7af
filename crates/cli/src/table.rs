//! Plain text tables for people: columns as wide as their widest cell.

use serde_json::Value;

/// Renders the members of JSON objects that the headings name; what is not there is a dash.
pub(crate) fn of(members: &[&str], items: &[Value]) -> String {
    let text = |value: &Value| if value.is_null() { "-".into() } else { value.as_str().map_or_else(|| value.to_string(), str::to_owned) };
    let rows: Vec<Vec<String>> = items.iter().map(|item| members.iter().map(|name| text(&item[*name])).collect()).collect();
    render(members, &rows)
}

/// Renders rows under headings.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut out = line(headings.to_vec());
    for row in rows {
        out.push('\n');
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let text = render(&["a", "bb"], &[vec!["long".into(), "x".into()], vec!["é".into(), String::new()]]);
        assert_eq!(text, "a     bb\nlong  x\né");
    }
}
