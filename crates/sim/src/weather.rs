//! How bad it gets.

/// Chances of what goes wrong by itself, and how many accidents are planned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// A frame or head is lost, comes twice, or comes late: the chance of each, per message.
    pub message: f64,
    /// A call fails, its answer is lost, or breaks off: the chance of each, per call.
    pub call: f64,
    /// Accidents planned in a run: partitions, restarts, crashes, full disks, clocks, tokens.
    pub accidents: usize,
    /// Disks lose what they held: power cuts, backups put back, rows altered.
    pub disasters: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self { message: 0.0, call: 0.0, accidents: 0, disasters: false };
    /// Networks, processes, clocks and credentials fail.
    pub const STORM: Self = Self { message: 0.12, call: 0.15, accidents: 14, disasters: false };
    /// Disks too.
    pub const DISASTER: Self = Self { accidents: 18, disasters: true, ..Self::STORM };

    /// Whether nothing at all goes wrong.
    pub(crate) fn is_calm(&self) -> bool {
        *self == Self::CALM
    }
}
