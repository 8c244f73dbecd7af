//! Where fuzzing begins: the golden files, and a few texts of parsers that have none.

use std::{fs, path::Path};

use serde_json::Value;

fn files(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(format!("{name}.json"));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cases = ["accepted", "refused"].into_iter().flat_map(|list| file[list].as_array().cloned().unwrap_or_default());
    cases.collect()
}

fn texts(name: &str) -> impl Iterator<Item = (Value, String)> {
    files(name).into_iter().filter_map(|case| case["text"].as_str().map(str::to_owned).map(|text| (case, text)))
}

/// The texts of these golden files, what is accepted and what is refused.
pub(crate) fn golden(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().flat_map(|name| texts(name)).map(|(_, text)| text.into_bytes()).collect()
}

pub(crate) fn cursors() -> Vec<Vec<u8>> {
    let positions = texts("changes").filter(|(case, _)| case["kind"] == "position").map(|(_, text)| text.into_bytes());
    golden(&["cursor"]).into_iter().chain(positions).collect()
}

/// Whole answers from the golden lines: a first line, all that can follow, a last line. The first byte cuts.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let of = |kind: &str| texts("changes").filter(|(case, _)| case["kind"] == kind).map(|(_, text)| text).collect::<Vec<_>>();
    let (firsts, lines, ends) = (of("first"), of("line"), of("end"));
    let good = |texts: &[String]| texts.first().cloned().unwrap_or_default();
    let mut answers: Vec<String> = vec![
        format!("{}\n{}\n{}\n", good(&firsts), good(&lines), good(&ends)),
        format!("{}\n{}\n{}\n", good(&firsts), lines.iter().take(2).cloned().collect::<Vec<_>>().join("\n"), good(&ends)),
        format!("{}\n{}\n", good(&firsts), good(&ends)),
    ];
    answers.extend(firsts.iter().chain(&ends).map(|line| format!("{line}\n")));
    answers.extend(lines.iter().map(|line| format!("{}\n{line}\n", good(&firsts))));
    answers.into_iter().zip([0_u8, 6, 63, 255].into_iter().cycle()).map(|(text, cut)| [&[cut], text.as_bytes()].concat()).collect()
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn authorizations() -> Vec<Vec<u8>> {
    owned(&[
        "Bearer till-1:mst__EMePTXK3jKMq3zP8c922CqIZQx25LG-QgBSSUWrnyk",
        "bearer  till-1:a:b ",
        "Bearer msa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Basic dGlsbDp0b2tlbg==",
        "Bearer",
        "msa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc",
    ])
}

pub(crate) fn claim_codes() -> Vec<Vec<u8>> {
    owned(&["01AB-CDEF-GHJK", "01ab cdef ghjk", "OIABCDEFGHJK", "01AB-CDEF-GHJ", "01AB-CDEF-GHJU"])
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    owned(&[
        "env = \"staging\"\nlisten = \"127.0.0.1:1\"\nlog = \"debug\"\n",
        "data_dir = '/var/lib/shop'\nlog_format = \"json\"\n",
        "tls_cert = \"a.pem\"\ntls_key = \"b.pem\"\n",
        "log = \"\\u007f\\t\\\"'\\\\\"\n",
        "log = '''two\nlines'''\n",
        "mqtt_lisen = \"x\"",
        "listen = 8080",
        "[table]\nenv = \"x\"",
    ])
}

pub(crate) fn csv_logs() -> Vec<Vec<u8>> {
    const HEAD: &str = "seq,invoice_no,line_no,kind,stock_code,description,quantity,unit_price,occurred_at,country\n";
    let line = "1,1,1,sale,85123a,HEART,6,2.55,2010-12-01T08:26:00,UK\n";
    let more = "2,1,2,sale,X,\"a, \"\"b\"\"\",1,2.555,2010-12-01T08:26:00,UK\n5,C4,1,return,Y,LAMP,-2,3.00,2010-12-02T08:29:00,UK\n";
    owned(&[
        &format!("{HEAD}{line}"),
        &format!("{HEAD}{line}{more}"),
        &format!("{HEAD}{}", line.replace(",6,", ",-6,")),
        HEAD,
        "a,b\n1,2\n",
    ])
}

/// Scripts for a session: bytes that mean nothing yet, in some lengths.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    let run = |step: u8, length: u8| (0..length).map(|n| n.wrapping_mul(step)).collect::<Vec<u8>>();
    vec![run(1, 40), run(7, 120), run(37, 250), run(101, 250), vec![1, 9, 10, 6, 6, 6, 10, 2, 1, 10]]
}
