//! RTP, RTCP, the feed ring and the leg.
