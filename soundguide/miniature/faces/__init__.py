"""The miniature's second domain: cartoon faces with six expressions, their voices, captions and clips."""
