//! How a rendering fails.

/// Why a template gave no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It refuses the messages: what `raise_exception` was given.
    Refused(String),
    /// It is no template, or cannot be followed.
    Broken(String),
}

impl Failure {
    /// The innermost line is kept.
    pub(super) fn at(self, line: usize) -> Self {
        match self {
            Self::Broken(problem) if !problem.starts_with("line ") => {
                Self::Broken(format!("line {line}: {problem}"))
            }
            other => other,
        }
    }
}

pub(super) fn broken(problem: impl Into<String>) -> Failure {
    Failure::Broken(problem.into())
}

pub(super) fn undefined(name: &str) -> Failure {
    broken(format!("'{name}' is undefined"))
}
