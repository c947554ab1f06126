"""The theorems behind the rules, as checks that anyone can run on a system of their own."""
