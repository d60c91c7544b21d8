package main

// notes are what the table cannot say.
const notes = `
What needs more than the programs' defaults: the chart's nginx is of a version that Debian has (` + "`image.tag`" + `).
`
