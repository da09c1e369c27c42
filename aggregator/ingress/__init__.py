"""Where operators' connections end."""
