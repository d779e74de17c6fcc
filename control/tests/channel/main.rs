//! The channel end to end on loopback: trust list, TLS in a tunnel, sealed datagrams, through a relay that is no more than a splice.

#[cfg(test)]
mod connection;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod trust;
