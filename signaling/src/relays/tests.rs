//! The book of several relays, and real relays asked over real HTTP.

mod book;
mod link_tests;
mod served;
