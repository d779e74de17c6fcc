//! What is handed over: a page, JSON with a schema, JUnit, two lines for a ticket, and a comparison of two.
