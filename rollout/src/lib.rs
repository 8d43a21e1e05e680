//! Every decision: device update machine, fleet planner, checker.
