//! What each class of surgery needs of a line, where that is from, and the verdict.
