//! Reads a branch from the server as an auditor would: plain HTTP with credentials of its own, no client library, nothing kept.

use std::collections::BTreeMap;

use mstore_protocol::{
    BranchKey, ChangeLine, ChangesEnd, ChangesFirst, Collection, Cursor, DeviceId, Digest, Enrolment, Head, LineOp, Row, Seq,
};
use serde_json::json;

use crate::{api::AdminApi, failure::Failure, shop::new_id};

/// Canonical texts by collection and id.
pub(crate) type Rows = BTreeMap<(Collection, String), String>;

/// Everything the server would give to a till of a branch.
#[derive(Debug, Default)]
pub(crate) struct ServerCopy {
    pub(crate) rows: Rows,
    /// The commit that last changed each row.
    pub(crate) seqs: BTreeMap<(Collection, String), Seq>,
    pub(crate) digests: BTreeMap<Collection, Digest>,
    pub(crate) cursor: Option<Cursor>,
    /// Body bytes of the first, full answer as they came over the wire.
    pub(crate) snapshot_bytes: u64,
}

/// An enrolled reader of one branch; [`Auditor::leave`] shuts it out again.
pub(crate) struct Auditor {
    device: DeviceId,
    http: reqwest::Client,
    base: String,
    key: BranchKey,
    credentials: String,
}

impl Auditor {
    /// Enrols a device of its own.
    pub(crate) async fn enrol(api: &AdminApi, base: &str, key: &BranchKey) -> Result<Self, Failure> {
        let name = format!("auditor-{}", new_id());
        let claim = api
            .post("/v1/admin/devices", &json!({ "merchant": key.merchant, "branch": key.branch, "device_id": name, "name": "auditor" }))
            .await?;
        let answer = api.post("/v1/devices/enrol", &json!({ "code": claim["code"], "nonce": name })).await?;
        let enrolment: Enrolment = serde_json::from_value(answer).map_err(|error| Failure::unavailable(format!("enrolment: {error}")))?;
        let http = reqwest::Client::builder().build().map_err(|error| Failure::unavailable(error.to_string()))?;
        let credentials = format!("{}:{}", enrolment.device_id, enrolment.token);
        Ok(Self { device: enrolment.device_id, http, base: base.trim_end_matches('/').to_owned(), key: key.clone(), credentials })
    }

    /// Its credentials end here.
    pub(crate) async fn leave(self, api: &AdminApi) -> Result<(), Failure> {
        api.post(&format!("/v1/admin/devices/{}/revoke", self.device), &json!({})).await.map(|_| ())
    }

    /// The branch's head.
    pub(crate) async fn head(&self) -> Result<Cursor, Failure> {
        let url = format!("{}/v1/{}/{}/head", self.base, self.key.merchant, self.key.branch);
        let gone = |error: reqwest::Error| Failure::unavailable(format!("the server went away: {error}"));
        let head: Head = self.http.get(url).bearer_auth(&self.credentials).send().await.map_err(gone)?.json().await.map_err(gone)?;
        Ok(head.cursor())
    }

    /// Reads until there is nothing newer.
    pub(crate) async fn read(&self) -> Result<ServerCopy, Failure> {
        let mut copy = ServerCopy::default();
        while self.read_once(&mut copy).await? {}
        Ok(copy)
    }

    /// One `/changes` call; false when the copy was up to date.
    async fn read_once(&self, copy: &mut ServerCopy) -> Result<bool, Failure> {
        let after = copy.cursor.map_or_else(String::new, |cursor| format!("?after={cursor}"));
        let url = format!("{}/v1/{}/{}/changes{after}", self.base, self.key.merchant, self.key.branch);
        let gone = |error: reqwest::Error| Failure::unavailable(format!("the server went away: {error}"));
        let response = self.http.get(url).bearer_auth(&self.credentials).header("accept-encoding", "gzip").send().await.map_err(gone)?;
        match response.status().as_u16() {
            200 => {}
            304 => return Ok(false),
            other => return Err(Failure::check(format!("/changes of {} answered {other}", self.key))),
        }
        let packed = response.headers().get("content-encoding").is_some_and(|coding| coding == "gzip");
        let body = response.bytes().await.map_err(gone)?;
        if copy.cursor.is_none() {
            copy.snapshot_bytes = body.len() as u64;
        }
        let text = if packed { unpack(&body)? } else { body.to_vec() };
        apply(copy, &text).map_err(|why| Failure::check(format!("/changes of {}: {why}", self.key)))?;
        Ok(true)
    }
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(body).read_to_end(&mut text).map_err(|error| Failure::check(format!("gzip: {error}")))?;
    Ok(text)
}

fn apply(copy: &mut ServerCopy, text: &[u8]) -> Result<(), String> {
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let first: ChangesFirst =
        lines.next().ok_or("no first line").and_then(|line| serde_json::from_slice(line).map_err(|_| "a first line that is none"))?;
    let mut count = 0;
    let mut end: Option<ChangesEnd> = None;
    for line in lines {
        if end.is_some() {
            return Err("lines after the last".to_owned());
        }
        if let Ok(last) = serde_json::from_slice::<ChangesEnd>(line) {
            end = Some(last);
            continue;
        }
        let line: ChangeLine<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let collection = Collection::parse(&line.c).map_err(|error| error.to_string())?;
        let place = (collection, line.id.clone().into_owned());
        count += 1;
        match line.op {
            LineOp::Delete => drop(copy.rows.remove(&place)),
            LineOp::Put => {
                let raw = line.row.ok_or("a put without a row")?;
                let row = Row::parse(raw.get()).map_err(|error| error.to_string())?;
                copy.seqs.insert(place.clone(), line.seq);
                copy.rows.insert(place, row.as_str().to_owned());
            }
        }
    }
    let end = end.ok_or("no last line")?;
    if count != first.rows {
        return Err(format!("{} rows promised, {count} came", first.rows));
    }
    copy.cursor = Some(Cursor { epoch: first.epoch, seq: end.seq, tag: end.tag });
    copy.digests = end.digests;
    Ok(())
}

/// The digests of rows, reckoned from the rows alone.
pub(crate) fn digests_of(rows: &Rows) -> BTreeMap<Collection, Digest> {
    let mut digests: BTreeMap<Collection, Digest> = BTreeMap::new();
    for ((collection, id), text) in rows {
        let digest = digests.entry(collection.clone()).or_default();
        *digest = digest.with(mstore_protocol::RowHash::of(collection, id, text));
    }
    digests
}

/// How two sets of rows differ, for people, at most `most` of them.
pub(crate) fn differences(server: &Rows, till: &Rows, most: usize) -> Vec<String> {
    let missing =
        server.iter().filter(|(place, _)| !till.contains_key(*place)).map(|((c, id), _)| format!("{c} {id} is missing on the till"));
    let extra = till.keys().filter(|place| !server.contains_key(*place)).map(|(c, id)| format!("{c} {id} is on the till only"));
    let other = server
        .iter()
        .filter_map(|(place, text)| till.get(place).filter(|own| *own != text).map(|own| (place, text, own)))
        .map(|((c, id), text, own)| format!("{c} {id}: server {text}, till {own}"));
    missing.chain(extra).chain(other).take(most).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(of: &[(&str, &str)]) -> Rows {
        of.iter().map(|(id, text)| ((Collection::product(), (*id).to_owned()), (*text).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_difference_shows() {
        let (server, till) = (rows(&[("a", "1"), ("b", "2"), ("c", "3")]), rows(&[("b", "2"), ("c", "4"), ("d", "5")]));
        assert_eq!(
            differences(&server, &till, 10),
            ["product a is missing on the till", "product d is on the till only", "product c: server 3, till 4"]
        );
        assert!(differences(&server, &server, 10).is_empty());
        assert_ne!(digests_of(&server), digests_of(&till));
    }

    #[test]
    fn an_answer_without_its_last_line_is_refused() {
        let first = r#"{"epoch":"b5d0c1a97e3f4a62","from":0,"to":1,"rows":0,"ops":[]}"#;
        let end = r#"{"end":true,"seq":1,"tag":"9c41d2e07ab85f13","digests":{}}"#;
        assert!(apply(&mut ServerCopy::default(), first.as_bytes()).is_err());
        assert!(apply(&mut ServerCopy::default(), format!("{first}\n{end}\n").as_bytes()).is_ok());
        let lies = first.replace("\"rows\":0", "\"rows\":1");
        assert!(apply(&mut ServerCopy::default(), format!("{lies}\n{end}\n").as_bytes()).is_err());
    }
}
