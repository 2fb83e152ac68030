//! What predictions are worth.
