//! Who may log in, and where to.

use mstore_protocol::Code;

/// A device as the server knows it.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub(crate) branch: usize,
    /// Branches it was ever assigned to: it may upload for these.
    pub(crate) branches: Vec<usize>,
    pub(crate) generation: u32,
    previous: Option<u32>,
    pub(crate) revoked: bool,
}

/// What a device says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) generation: u32,
    pub(crate) branch: usize,
}

impl Registered {
    pub(super) fn new(branch: usize) -> Self {
        Self { branch, branches: vec![branch], generation: 1, previous: None, revoked: false }
    }

    /// The first use of a new token ends the old one.
    pub(crate) fn log_in(&mut self, login: Login) -> Result<(), Code> {
        if self.revoked {
            return Err(Code::DeviceRevoked);
        }
        if login.generation == self.generation {
            self.previous = None;
            return Ok(());
        }
        if self.previous == Some(login.generation) { Ok(()) } else { Err(Code::CredentialsRefused) }
    }

    /// May it read this branch?
    pub(crate) fn reads(&mut self, login: Login) -> Result<(), Code> {
        self.log_in(login)?;
        if self.branch == login.branch { Ok(()) } else { Err(Code::Forbidden) }
    }

    /// May it upload for this branch?
    pub(crate) fn uploads(&mut self, login: Login) -> Result<(), Code> {
        self.log_in(login)?;
        if self.branches.contains(&login.branch) { Ok(()) } else { Err(Code::Forbidden) }
    }

    /// A second rotation before the first was used keeps the token that the device really has.
    pub(crate) fn rotate(&mut self) -> u32 {
        self.previous = self.previous.or(Some(self.generation));
        self.generation += 1;
        self.generation
    }

    pub(crate) fn revoke(&mut self) {
        self.revoked = true;
        self.generation += 1;
        self.previous = None;
    }

    pub(crate) fn move_to(&mut self, branch: usize) {
        self.branch = branch;
        if !self.branches.contains(&branch) {
            self.branches.push(branch);
        }
    }

    /// A claim is redeemed: a new token, and in again.
    pub(crate) fn enrol(&mut self) -> Login {
        self.revoked = false;
        self.previous = None;
        self.generation += 1;
        Login { generation: self.generation, branch: self.branch }
    }
}
