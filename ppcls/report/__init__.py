"""What an evaluation found, as files and as one page: `ppcls eval --report FOLDER`."""
