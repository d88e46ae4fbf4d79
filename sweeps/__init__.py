"""The questions asked, how they are searched, and what they answer."""
