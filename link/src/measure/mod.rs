//! The measurement: its packets, its phases, and what is made of what came.
