"""What the papers print beside what comes out, one file for each paper or question."""
