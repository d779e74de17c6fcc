//! One test for each requirement that the gate alone can show. The files are by section of HANDOVER.md.

mod commands;
mod grants;
mod liveness;
mod obedience;
mod people;
mod raven;
mod states;
mod table;
