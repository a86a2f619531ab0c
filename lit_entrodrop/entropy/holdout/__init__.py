"""What holdout text tells about each training document."""
