"""What other programs use of this one: `import downloader` has it, loaded when it is used."""
