"""The stability sweep: every path over dtype, regime and magnitude, forward and backward."""
