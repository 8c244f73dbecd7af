//! Content codings of an answer: a first line of the caller's own before a body that all callers share.
//!
//! zstd: two frames one after the other (RFC 8878 §3.1). gzip: one member made of two deflate runs, because some readers stop after the
//! first member (RFC 1952 §2.2): the first run ends on a byte boundary, the checksums are combined.

use std::{
    io::{self, Read as _, Write as _},
    sync::OnceLock,
};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, Status, write::DeflateEncoder};

const ZSTD_LEVEL: i32 = 3;
/// Shorter answers are sent as they are: compressing costs more than it saves.
const COMPRESS_BYTES_MIN: u64 = 1_024;
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
    Identity,
}

impl Coding {
    /// What the caller likes best of what we have (RFC 9110 §12.5.3); zstd when it does not care.
    pub(crate) fn negotiate(accept_encoding: &str) -> Self {
        let mut best = (Self::Identity, 0.0_f32);
        for item in accept_encoding.split(',') {
            let (name, q) = item.split_once(';').unwrap_or((item, ""));
            let q = q.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            let coding = match name.trim().to_ascii_lowercase().as_str() {
                "zstd" | "*" => Self::Zstd,
                "gzip" | "x-gzip" => Self::Gzip,
                _ => continue,
            };
            if q > best.1 || (q > 0.0 && q >= best.1 && coding == Self::Zstd) {
                best = (coding, q);
            }
        }
        best.0
    }

    /// For `Content-Encoding`.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

/// The shared part of an answer: kept in one coding, brought into another when somebody asks for it.
pub(crate) struct Shared {
    kept: Kept,
    plain_bytes: u64,
    zstd: OnceLock<Bytes>,
    deflate: OnceLock<Deflated>,
}

enum Kept {
    Plain(Bytes),
    Zstd(Bytes),
}

struct Deflated {
    bytes: Bytes,
    crc: Crc,
}

impl Shared {
    pub(crate) fn plain(bytes: Bytes) -> Self {
        let plain_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { kept: Kept::Plain(bytes), plain_bytes, zstd: OnceLock::new(), deflate: OnceLock::new() }
    }

    pub(crate) fn zstd(bytes: Bytes, plain_bytes: u64) -> Self {
        Self { kept: Kept::Zstd(bytes), plain_bytes, zstd: OnceLock::new(), deflate: OnceLock::new() }
    }

    /// The coding really used: small answers are not compressed.
    pub(crate) fn coding(&self, wished: Coding) -> Coding {
        if self.plain_bytes < COMPRESS_BYTES_MIN { Coding::Identity } else { wished }
    }

    /// Whether [`Self::body`] has only to be put together.
    pub(crate) fn is_ready(&self, coding: Coding) -> bool {
        match (coding, &self.kept) {
            (Coding::Identity, Kept::Plain(_)) | (Coding::Zstd, Kept::Zstd(_)) => true,
            (Coding::Zstd, Kept::Plain(_)) => self.zstd.get().is_some(),
            (Coding::Gzip, _) => self.deflate.get().is_some(),
            (Coding::Identity, Kept::Zstd(_)) => false,
        }
    }

    /// Memory held.
    pub(crate) fn stored_bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::Plain(bytes) | Kept::Zstd(bytes) => bytes.len(),
        };
        kept + self.zstd.get().map_or(0, Bytes::len) + self.deflate.get().map_or(0, |deflated| deflated.bytes.len())
    }

    /// The whole body for one caller. May compress: not for a thread that must not be held up, unless [`Self::is_ready`].
    pub(crate) fn body(&self, coding: Coding, first_line: &[u8]) -> io::Result<Vec<Bytes>> {
        match coding {
            Coding::Identity => Ok(vec![Bytes::copy_from_slice(first_line), self.to_plain()?]),
            Coding::Zstd => Ok(vec![zstd::bulk::compress(first_line, ZSTD_LEVEL)?.into(), self.to_zstd()?]),
            Coding::Gzip => self.to_gzip(first_line),
        }
    }

    fn to_plain(&self) -> io::Result<Bytes> {
        match &self.kept {
            Kept::Plain(bytes) => Ok(bytes.clone()),
            Kept::Zstd(bytes) => Ok(zstd::stream::decode_all(&bytes[..])?.into()),
        }
    }

    fn to_zstd(&self) -> io::Result<Bytes> {
        match &self.kept {
            Kept::Zstd(bytes) => Ok(bytes.clone()),
            Kept::Plain(plain) => kept_once(&self.zstd, || Ok(zstd::bulk::compress(plain, ZSTD_LEVEL)?.into())).cloned(),
        }
    }

    fn to_gzip(&self, first_line: &[u8]) -> io::Result<Vec<Bytes>> {
        let rest = kept_once(&self.deflate, || match &self.kept {
            Kept::Plain(plain) => deflate(&plain[..]),
            Kept::Zstd(bytes) => deflate(zstd::stream::read::Decoder::new(&bytes[..])?),
        })?;
        let mut crc = Crc::new();
        crc.update(first_line);
        crc.combine(&rest.crc);
        let mut head = GZIP_HEADER.to_vec();
        head.extend(sync_deflate(first_line)?);
        let mut foot = crc.sum().to_le_bytes().to_vec();
        foot.extend(crc.amount().to_le_bytes());
        Ok(vec![head.into(), rest.bytes.clone(), foot.into()])
    }
}

/// `OnceLock` with a fallible maker; of two makers at once one wins.
fn kept_once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
    if let Some(kept) = cell.get() {
        return Ok(kept);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// A deflate run without header that ends the stream.
fn deflate(mut plain: impl io::Read) -> io::Result<Deflated> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let mut crc = Crc::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = plain.read(&mut chunk)?;
        if read == 0 {
            return Ok(Deflated { bytes: encoder.finish()?.into(), crc });
        }
        crc.update(&chunk[..read]);
        encoder.write_all(&chunk[..read])?;
    }
}

/// A deflate run that ends on a byte boundary and lets another follow.
fn sync_deflate(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(plain.len() + 64);
    loop {
        let consumed = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&plain[consumed..], &mut out, FlushCompress::Sync).map_err(io::Error::other)?;
        let all_in = usize::try_from(compress.total_in()).is_ok_and(|total| total == plain.len());
        if all_in && out.len() < out.capacity() {
            return Ok(out);
        }
        if status == Status::StreamEnd {
            return Err(io::Error::other("the deflate stream ended too soon"));
        }
        out.reserve(plain.len().max(64));
    }
}

/// Decompresses a request's body, at most `limit` bytes; `None` if it is longer.
pub(crate) fn decompress(coding: Coding, body: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(body).take(bound).read_to_end(&mut plain)?,
        Coding::Zstd => zstd::stream::read::Decoder::new(body)?.take(bound).read_to_end(&mut plain)?,
        Coding::Identity => body.take(bound).read_to_end(&mut plain)?,
    };
    Ok((plain.len() <= limit).then_some(plain))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn joined(shared: &Shared, coding: Coding, first: &[u8]) -> Vec<u8> {
        shared.body(coding, first).unwrap().concat()
    }

    #[test]
    fn every_coding_gives_the_same_text() {
        let rest: Vec<u8> = (0..20_000_u32).flat_map(|i| format!("line {}\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
        let compressed = zstd::bulk::compress(&rest, 3).unwrap();
        let long_first: Vec<u8> = (0..100_000_u32).map(|i| u8::try_from(i.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
        for shared in [Shared::plain(rest.clone().into()), Shared::zstd(compressed.into(), 1 << 20)] {
            for first in [&b"first\n"[..], b"", &long_first] {
                let expected = [first, &rest[..]].concat();
                assert_eq!(joined(&shared, Coding::Identity, first), expected);
                assert_eq!(zstd::stream::decode_all(&joined(&shared, Coding::Zstd, first)[..]).unwrap(), expected);
                let mut plain = Vec::new();
                // The strict reader of one member.
                flate2::read::GzDecoder::new(&joined(&shared, Coding::Gzip, first)[..]).read_to_end(&mut plain).unwrap();
                assert_eq!(plain, expected);
            }
        }
    }

    #[test]
    fn negotiation_follows_the_weights() {
        let cases = [
            ("", Coding::Identity),
            ("identity", Coding::Identity),
            ("gzip, deflate, br", Coding::Gzip),
            ("gzip, deflate, br, zstd", Coding::Zstd),
            ("zstd;q=0.5, gzip;q=0.9", Coding::Gzip),
            ("zstd;q=0, gzip", Coding::Gzip),
            ("zstd;q=0", Coding::Identity),
            ("*", Coding::Zstd),
            ("br", Coding::Identity),
        ];
        for (header, coding) in cases {
            assert_eq!(Coding::negotiate(header), coding, "{header}");
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 10_000_000], 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(Coding::Zstd, &bomb, 1_000_000).unwrap(), None);
        assert!(decompress(Coding::Gzip, b"\x1f\x8b\x08\0", 100).is_err(), "truncated");
    }
}
