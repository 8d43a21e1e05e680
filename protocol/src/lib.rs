//! What crosses the wire: ids, assignment, reports, topics.
