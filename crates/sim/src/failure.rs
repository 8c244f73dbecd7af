//! A run that broke a promise, told so that a person can follow it.

use std::fmt;

use crate::{promise::Promise, weather::Weather};

/// A broken promise: the smallest run that was found to break it, and the last things that happened in it.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// Its weather.
    pub weather: Weather,
    /// Which promise.
    pub promise: Promise,
    /// How it was broken.
    pub what: String,
    /// What had to happen for it, out of everything that was planned; by time in milliseconds.
    pub steps: Vec<String>,
    /// How many things had been planned.
    pub planned: usize,
    /// The last events.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} broke a promise: {}", self.seed, self.promise)?;
        writeln!(f, "{}", self.what)?;
        writeln!(f, "{:?}", self.weather)?;
        writeln!(f, "{} of {} planned steps are enough:", self.steps.len(), self.planned)?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        writeln!(f, "the last {} events:", self.trace.len())?;
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
