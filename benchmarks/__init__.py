"""What Spanway costs, beside nginx, on one core: see README.md in this folder."""
