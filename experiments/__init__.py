"""The reproduction of the papers, the study of group counts, the training check."""
