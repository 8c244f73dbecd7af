//! A claim as a QR code: on the terminal, or as a PNG file. What stands in it is `mstore_protocol::ClaimLink`.

use std::io::Write as _;

use flate2::{Compression, Crc, write::ZlibEncoder};
use mstore_protocol::ClaimLink;
use qrcode::{Color, EcLevel, QrCode};

use crate::failure::Failure;

/// Light modules around the code, as ISO/IEC 18004 wants them.
const QUIET_MODULES: usize = 4;
/// Pixels of a module in the PNG: 45 modules become some 420 pixels.
const MODULE_PIXELS: usize = 8;

/// The modules of a code with the quiet zone around them; true is dark.
pub(super) struct Picture {
    side: usize,
    modules: Vec<bool>,
}

impl Picture {
    /// Of a claim. Level M: a screen that is smeared here and there is still read.
    pub(super) fn of(link: &ClaimLink) -> Result<Self, Failure> {
        let code = QrCode::with_error_correction_level(link.to_string(), EcLevel::M)
            .map_err(|error| Failure::check(format!("the claim does not fit into a QR code: {error}")))?;
        let inner = code.width();
        let side = inner + 2 * QUIET_MODULES;
        let colors = code.to_colors();
        let is_dark = |x: usize, y: usize| {
            let (x, y) = (x.checked_sub(QUIET_MODULES)?, y.checked_sub(QUIET_MODULES)?);
            (x < inner && y < inner).then(|| colors[y * inner + x] == Color::Dark)
        };
        let modules = (0..side * side).map(|i| is_dark(i % side, i / side).unwrap_or(false)).collect();
        Ok(Self { side, modules })
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        self.modules.get(y * self.side + x).copied().unwrap_or(false)
    }

    /// Two modules a character, light on dark: black on white whatever the terminal's colours are.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for y in (0..self.side).step_by(2) {
            text.push_str("\u{1b}[38;5;16;48;5;231m");
            for x in 0..self.side {
                text.push(match (self.is_dark(x, y), self.is_dark(x, y + 1)) {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                });
            }
            text.push_str("\u{1b}[0m\n");
        }
        text
    }

    /// A PNG of one bit a pixel (ISO/IEC 15948).
    pub(super) fn to_png(&self) -> Result<Vec<u8>, Failure> {
        let failed = |error: std::io::Error| Failure::check(format!("the picture: {error}"));
        let pixels = self.side * MODULE_PIXELS;
        let side = u32::try_from(pixels).map_err(|error| Failure::check(error.to_string()))?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
        for y in 0..pixels {
            let mut row = vec![0_u8; 1 + pixels.div_ceil(8)];
            for x in (0..pixels).filter(|x| !self.is_dark(x / MODULE_PIXELS, y / MODULE_PIXELS)) {
                row[1 + x / 8] |= 0x80 >> (x % 8);
            }
            packed.write_all(&row).map_err(failed)?;
        }
        let header = [&side.to_be_bytes()[..], &side.to_be_bytes()[..], &[1, 0, 0, 0, 0]].concat();
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in [(b"IHDR", header), (b"IDAT", packed.finish().map_err(failed)?), (b"IEND", Vec::new())] {
            chunk(&mut png, kind, &data)?;
        }
        Ok(png)
    }
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) -> Result<(), Failure> {
    let length = u32::try_from(data.len()).map_err(|error| Failure::check(error.to_string()))?;
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    for part in [&length.to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()] {
        png.extend_from_slice(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read as _;

    use super::*;

    fn link() -> ClaimLink {
        ClaimLink { server: "https://sync.example.com".into(), code: "01AB-CDEF-GHJK".into() }
    }

    /// What a till's camera makes of dark and light points.
    fn read(side: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| if is_dark(x, y) { 0 } else { 255 });
        let grids = image.detect_grids();
        grids.first().expect("a code is found").decode().unwrap().1
    }

    #[test]
    fn a_camera_reads_the_png() {
        let png = Picture::of(&link()).unwrap().to_png().unwrap();
        let side = usize::try_from(u32::from_be_bytes(png[16..20].try_into().unwrap())).unwrap();
        // Signature 8, IHDR 25, length and name of IDAT 8; IDAT's checksum 4, IEND 12.
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&png[41..png.len() - 16]).read_to_end(&mut rows).unwrap();
        let bytes_per_row = 1 + side.div_ceil(8);
        assert_eq!(rows.len(), side * bytes_per_row);
        let text = read(side, |x, y| rows[y * bytes_per_row + 1 + x / 8] & (0x80 >> (x % 8)) == 0);
        assert_eq!(ClaimLink::parse(&text), Some(link()));
    }

    #[test]
    fn a_camera_reads_the_terminal() {
        let text = Picture::of(&link()).unwrap().to_text();
        let lines: Vec<Vec<char>> = text
            .lines()
            .map(|line| line.trim_start_matches("\u{1b}[38;5;16;48;5;231m").trim_end_matches("\u{1b}[0m").chars().collect())
            .collect();
        let side = lines[0].len();
        let is_dark = |x: usize, y: usize| {
            let (x, y) = (x / 4, y / 4);
            let half = if y % 2 == 0 { ['█', '▀'] } else { ['█', '▄'] };
            lines.get(y / 2).is_some_and(|line| half.contains(&line[x]))
        };
        assert_eq!(ClaimLink::parse(&read(side * 4, is_dark)), Some(link()));
    }
}
