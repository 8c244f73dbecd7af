//! The HTTP calls of a device, and what each answer means for the engine.

mod reports;

use std::{
    io::Write as _,
    sync::{Arc, Mutex},
};

use mstore_engine::{Ask, CatchUpOutcome, Fault, UploadOutcome};
use mstore_protocol::{
    Code, Collection, Cursor, Digest, EnrolRequest, Enrolment, Epoch, Head, LastError, Problem, Rotation, Row, SUB_DIGESTS, Seq, Tag,
    UploadAnswer,
};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    ahead::WriterAhead,
    chance::Chance,
    db::LocalDb,
    error::OpenError,
    shared::{held, wall},
    staged::Staged,
    stats::Stats,
    trust::certificate_fault,
};

/// Staged rows beyond this go to the staging table.
const STAGED_BYTES_MAX: usize = 48 * 1024 * 1024;

/// A call did not bring an answer that can be used.
#[derive(Debug)]
pub(crate) enum CallError {
    /// Nothing came, or it broke off.
    Network(String),
    /// The server, or something before it, said no.
    Status { status: StatusCode, problem: Option<Box<Problem>>, retry_after_ms: Option<u64> },
}

impl CallError {
    fn is_unknown_collection(&self) -> bool {
        matches!(self, Self::Status { problem: Some(problem), .. } if problem.code == Code::UnknownCollection)
    }

    /// As trouble that may pass.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Network(_) => Fault::default(),
            Self::Status { retry_after_ms, .. } => Fault { retry_after_ms: *retry_after_ms, reached: true },
        }
    }
}

/// Redeems a claim code.
pub(crate) async fn enrol(http: &reqwest::Client, server_url: &str, request: &EnrolRequest) -> Result<Enrolment, OpenError> {
    let url = format!("{}/v1/devices/enrol", server_url.trim_end_matches('/'));
    let unreachable = |error: &dyn std::fmt::Display| OpenError::Unreachable { url: server_url.to_owned(), detail: error.to_string() };
    let body = serde_json::to_vec(request).expect("a request is always JSON");
    let not_sent = |error: reqwest::Error| match certificate_fault(&error) {
        Some(code) => OpenError::Certificate { url: server_url.to_owned(), code },
        None => unreachable(&error),
    };
    let response = http.post(url).header(CONTENT_TYPE, "application/json").body(body).send().await.map_err(not_sent)?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| unreachable(&error))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| unreachable(&error));
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(OpenError::Refused(problem)),
        Err(_) => Err(unreachable(&format!("status {status}"))),
    }
}

/// The calls of one device.
#[derive(Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    server: String,
    branch: String,
    bearer: HeaderValue,
    online: watch::Receiver<bool>,
    chance: Mutex<Chance>,
    stats: Arc<Mutex<Stats>>,
}

#[derive(Deserialize)]
struct SubDigestsAnswer {
    epoch: Epoch,
    seq: Seq,
    tag: Tag,
    sub_digests: Vec<Digest>,
}

#[derive(Deserialize)]
struct RowsAnswer<'a> {
    epoch: Epoch,
    seq: Seq,
    tag: Tag,
    #[serde(borrow)]
    rows: Vec<RowOfRange<'a>>,
}

#[derive(Deserialize)]
struct RowOfRange<'a> {
    seq: Seq,
    #[serde(borrow)]
    row: &'a RawValue,
}

impl Api {
    pub(crate) fn new(
        http: reqwest::Client,
        server_url: &str,
        enrolment: &Enrolment,
        online: watch::Receiver<bool>,
        chance: Chance,
        stats: Arc<Mutex<Stats>>,
    ) -> Result<Self, OpenError> {
        let bearer = format!("Bearer {}:{}", enrolment.device_id, enrolment.token);
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| OpenError::Url {
            url: server_url.to_owned(),
            detail: "the token holds characters that no header may hold".into(),
        })?;
        bearer.set_sensitive(true);
        let branch = format!("/v1/{}/{}", enrolment.merchant, enrolment.branch);
        let server = server_url.trim_end_matches('/').to_owned();
        Ok(Self { http, server, branch, bearer, online, chance: Mutex::new(chance), stats })
    }

    /// The same calls with another token.
    pub(crate) fn renewed(&self, enrolment: &Enrolment) -> Result<Self, OpenError> {
        let chance = self.chance.lock().expect("no panic while the dice were held").clone();
        Self::new(self.http.clone(), &self.server, enrolment, self.online.clone(), chance, Arc::clone(&self.stats))
    }

    /// Waits for `work`, unless the network is switched off meanwhile.
    async fn unless_cut<T>(&self, work: impl Future<Output = reqwest::Result<T>>) -> Result<T, CallError> {
        let mut online = self.online.clone();
        tokio::select! {
            biased;
            _ = online.wait_for(|online| !online) => Err(CallError::Network("the network is switched off".into())),
            result = work => result.map_err(|error| CallError::Network(describe(&error))),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.server))
            .header(AUTHORIZATION, self.bearer.clone())
            .header(ACCEPT, HeaderValue::from_static(""))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let (fails, loses) = {
            let mut chance = self.chance.lock().expect("no panic while the dice were held");
            (chance.fail_http(), chance.lose_answer())
        };
        if fails {
            return Err(CallError::Network("failed on purpose".into()));
        }
        let request = request.build().map_err(|error| CallError::Network(describe(&error)))?;
        let body = request.body().and_then(|body| body.as_bytes()).map_or(0, <[u8]>::len);
        let out = head_bytes(request.headers())
            + request.method().as_str().len()
            + request.url().path().len()
            + request.url().query().map_or(0, |q| q.len() + 1)
            + 12
            + body;
        self.count(0, out);
        let response = self.unless_cut(self.http.execute(request)).await?;
        self.count(head_bytes(response.headers()) + 19, 0);
        if loses {
            return Err(CallError::Network("the answer was lost on purpose".into()));
        }
        Ok(response)
    }

    fn count(&self, bytes_in: usize, bytes_out: usize) {
        let mut stats = self.stats.lock().expect("no panic while the figures were held");
        stats.http_bytes_in += bytes_in as u64;
        stats.http_bytes_out += bytes_out as u64;
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, CallError> {
        let retry_after_ms = retry_after_ms(response.headers());
        let status = response.status();
        let body = self.unless_cut(response.bytes()).await?;
        self.count(body.len(), 0);
        if status.is_success() {
            return Ok(body.into());
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok().map(Box::new);
        if let Some(problem) = &problem {
            held(&self.stats).last_error = Some(LastError { code: problem.code, at: wall() });
        }
        Err(CallError::Status { status, problem, retry_after_ms })
    }

    async fn json<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CallError> {
        let response = self.send(request).await?;
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| CallError::Network(format!("not the answer of the contract: {error}")))
    }

    /// `GET /changes`; rows join `staged`.
    pub(crate) async fn changes(
        &self,
        ask: &Ask,
        staged: &mut Staged,
        snapshot: bool,
        plain: bool,
        db: &Arc<Mutex<LocalDb>>,
    ) -> CatchUpOutcome {
        let outcome = self.try_changes(ask, staged, snapshot, plain, db).await;
        match outcome {
            Ok(outcome) => outcome,
            Err(CallError::Status { status, problem, retry_after_ms }) => {
                let code = problem.as_ref().map(|problem| problem.code);
                match status.as_u16() {
                    410 => CatchUpOutcome::SnapshotRequired,
                    429 | 408 | 500..=599 => CatchUpOutcome::Failed(Fault { retry_after_ms, reached: true }),
                    401 => CatchUpOutcome::Refused(code.unwrap_or(Code::CredentialsRefused)),
                    403 => CatchUpOutcome::Refused(code.unwrap_or(Code::Forbidden)),
                    404 => CatchUpOutcome::Refused(code.unwrap_or(Code::NotFound)),
                    _ => CatchUpOutcome::Refused(code.unwrap_or(Code::Unknown)),
                }
            }
            Err(CallError::Network(detail)) => {
                tracing::debug!(detail, "changes could not be fetched");
                CatchUpOutcome::Failed(Fault::default())
            }
        }
    }

    async fn try_changes(
        &self,
        ask: &Ask,
        staged: &mut Staged,
        snapshot: bool,
        plain: bool,
        db: &Arc<Mutex<LocalDb>>,
    ) -> Result<CatchUpOutcome, CallError> {
        let path = match (&ask.resume, &ask.after) {
            // With the cursor the server can tell whether it still has the deletions since.
            (Some(position), Some(cursor)) => format!("{}/changes?after={cursor}&resume={}", self.branch, percent(position)),
            (Some(position), None) => format!("{}/changes?resume={}", self.branch, percent(position)),
            // Rows that came by ranges do not say which own operations they contain.
            (None, Some(cursor)) if ask.over_ranges => format!("{}/changes?after={cursor}&ops=all", self.branch),
            (None, Some(cursor)) => format!("{}/changes?after={cursor}", self.branch),
            (None, None) => format!("{}/changes", self.branch),
        };
        let mut request = self.request(Method::GET, &path);
        if !plain {
            request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(CatchUpOutcome::Unchanged);
        }
        if response.status() != StatusCode::OK {
            return Err(self.body(response).await.err().unwrap_or_else(|| CallError::Network("an answer that is none".into())));
        }
        let mut ahead = WriterAhead::default();
        let is_usable = self.read_lines(response, ask, staged, (snapshot, db), &mut ahead).await;
        let end = staged.end().filter(|_| matches!(is_usable, Ok(true)));
        ahead.finish(end.is_some()).await;
        if !is_usable? {
            return Ok(CatchUpOutcome::Failed(Fault { retry_after_ms: None, reached: true }));
        }
        if let Some((to, digests)) = end {
            return Ok(CatchUpOutcome::Complete { to, digests });
        }
        if ask.over_ranges {
            return Ok(CatchUpOutcome::Broken { resume: None });
        }
        spill(db, staged, snapshot).await;
        Ok(CatchUpOutcome::Broken { resume: staged.position().map(str::to_owned) })
    }

    /// Takes up the lines of an answer, as far as they come; false if they cannot be used.
    async fn read_lines(
        &self,
        mut response: Response,
        ask: &Ask,
        staged: &mut Staged,
        (snapshot, db): (bool, &Arc<Mutex<LocalDb>>),
        ahead: &mut WriterAhead,
    ) -> Result<bool, CallError> {
        let mut decoder = Decoder::of(response.headers())?;
        while let Ok(Some(chunk)) = self.unless_cut(response.chunk()).await {
            self.count(chunk.len(), 0);
            if let Err(detail) = decoder.feed(&chunk, staged) {
                tracing::warn!(detail, "an answer of /changes cannot be used");
                return Ok(false);
            }
            if snapshot && !staged.joined {
                ahead.take(staged, db);
            }
            if staged.bytes() > STAGED_BYTES_MAX {
                if ask.over_ranges {
                    // It was begun a moment ago; so much has to be asked for in another way.
                    return Ok(false);
                }
                spill(db, staged, snapshot).await;
            }
        }
        Ok(true)
    }

    pub(crate) async fn head(&self) -> Result<Head, CallError> {
        self.json(self.request(Method::GET, &format!("{}/head", self.branch))).await
    }

    pub(crate) async fn sub_digests(&self, collection: &Collection) -> Result<(Cursor, Vec<Digest>), CallError> {
        let asked = self.json(self.request(Method::GET, &format!("{}/digests?collection={collection}", self.branch))).await;
        let answer: SubDigestsAnswer = match asked {
            // Somebody put rows here that the server has no collection for: it has none of them.
            Err(error) if error.is_unknown_collection() => return Ok((self.head().await?.cursor(), vec![Digest::EMPTY; SUB_DIGESTS])),
            asked => asked?,
        };
        if answer.sub_digests.len() != SUB_DIGESTS {
            return Err(CallError::Network(format!("{} sub-digests instead of {SUB_DIGESTS}", answer.sub_digests.len())));
        }
        Ok((Cursor { epoch: answer.epoch, seq: answer.seq, tag: answer.tag }, answer.sub_digests))
    }

    pub(crate) async fn rows(&self, collection: &Collection, ranges: &[u8]) -> Result<(Cursor, Vec<(Row, Seq)>), CallError> {
        let ranges: Vec<String> = ranges.iter().map(u8::to_string).collect();
        let path = format!("{}/rows?collection={collection}&range={}", self.branch, ranges.join(","));
        let response = self.send(self.request(Method::GET, &path)).await?;
        let body = match self.body(response).await {
            Err(error) if error.is_unknown_collection() => return Ok((self.head().await?.cursor(), Vec::new())),
            body => body?,
        };
        let malformed = |error: &dyn std::fmt::Display| CallError::Network(format!("not the answer of the contract: {error}"));
        let answer: RowsAnswer<'_> = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
        let rows = answer.rows.iter().map(|line| Ok((Row::parse(line.row.get()).map_err(|error| malformed(&error))?, line.seq)));
        Ok((Cursor { epoch: answer.epoch, seq: answer.seq, tag: answer.tag }, rows.collect::<Result<_, CallError>>()?))
    }

    pub(crate) async fn upload(&self, body: String) -> UploadOutcome {
        let request =
            self.request(Method::POST, &format!("{}/operations", self.branch)).header(CONTENT_TYPE, "application/json").body(body);
        match self.json::<UploadAnswer>(request).await {
            Ok(answer) => UploadOutcome::Answered(answer.verdicts),
            Err(CallError::Network(detail)) => {
                tracing::debug!(detail, "operations could not be uploaded");
                UploadOutcome::Failed(Fault::default())
            }
            Err(CallError::Status { status, problem, retry_after_ms }) => {
                let code = problem.map(|problem| problem.code);
                match (status.as_u16(), code) {
                    (408 | 429 | 500..=599, _) => UploadOutcome::Failed(Fault { retry_after_ms, reached: true }),
                    (401, code) => UploadOutcome::Refused(code.unwrap_or(Code::CredentialsRefused)),
                    (403 | 404, Some(code)) => UploadOutcome::Refused(code),
                    (413, code) => UploadOutcome::Rejected(code.unwrap_or(Code::BodyTooLarge)),
                    (_, code) => UploadOutcome::Rejected(code.unwrap_or(Code::PathRefused)),
                }
            }
        }
    }

    pub(crate) async fn rotate(&self) -> Result<Rotation, CallError> {
        self.json(self.request(Method::POST, "/v1/devices/self/rotate")).await
    }
}

async fn spill(db: &Arc<Mutex<LocalDb>>, staged: &mut Staged, snapshot: bool) {
    let (db, mut moved) = (Arc::clone(db), std::mem::take(staged));
    let work = tokio::task::spawn_blocking(move || {
        let result = db.lock().expect("no panic while the database was held").spill(&mut moved, snapshot);
        if let Err(error) = result {
            tracing::warn!(%error, "rows could not be staged on disk; they stay in memory");
        }
        moved
    });
    *staged = work.await.expect("staging does not panic");
}

/// Undoes the content encoding as the bytes come; several zstd frames one after the other are one text.
enum Decoder {
    Plain,
    Zstd(Box<zstd::stream::write::Decoder<'static, Vec<u8>>>),
}

impl Decoder {
    fn of(headers: &HeaderMap) -> Result<Self, CallError> {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Ok(Self::Plain),
            Some(b"zstd") => {
                let decoder = zstd::stream::write::Decoder::new(Vec::with_capacity(64 * 1024));
                decoder.map(|decoder| Self::Zstd(Box::new(decoder))).map_err(|error| CallError::Network(error.to_string()))
            }
            Some(_) => Err(CallError::Network("an encoding that nobody asked for".into())),
        }
    }

    fn feed(&mut self, chunk: &[u8], staged: &mut Staged) -> Result<(), String> {
        match self {
            Self::Plain => staged.feed(chunk).map_err(|error| error.to_string()),
            Self::Zstd(decoder) => {
                decoder.write_all(chunk).and_then(|()| decoder.flush()).map_err(|error| error.to_string())?;
                staged.feed(decoder.get_ref()).map_err(|error| error.to_string())?;
                decoder.get_mut().clear();
                Ok(())
            }
        }
    }
}

fn describe(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    let mut text = certificate_fault(error).map_or_else(String::new, |code| format!("{code}: "));
    text.push_str(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The bytes that headers take on the wire.
fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.saturating_mul(1000))
}

/// Percent-encodes whatever is not unreserved (RFC 3986 §2.3).
fn percent(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn zstd_frames_one_after_the_other_are_one_text() {
        let first = r#"{"epoch":"b5d0c1a97e3f4a62","from":0,"to":7,"rows":0,"ops":[]}"#;
        let end = r#"{"end":true,"seq":7,"tag":"9c41d2e07ab85f13","digests":{}}"#;
        let mut wire = zstd::encode_all(format!("{first}\n").as_bytes(), 3).unwrap();
        wire.extend(zstd::encode_all(format!("{end}\n").as_bytes(), 3).unwrap());
        for size in [1, 7, 1000] {
            let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("zstd"))]);
            let (mut decoder, mut staged) = (Decoder::of(&headers).unwrap(), Staged::default());
            for piece in wire.chunks(size) {
                decoder.feed(piece, &mut staged).unwrap();
            }
            assert_eq!(staged.end().unwrap().0.seq, 7, "pieces of {size}");
        }
    }

    #[test]
    fn a_position_survives_the_query_string() {
        assert_eq!(percent("b5.7.product.SKU 00/ä&x"), "b5.7.product.SKU%2000%2F%C3%A4%26x");
    }
}
