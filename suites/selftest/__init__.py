"""The harness tested: its parts, its command line, and whether what it measures is true."""
