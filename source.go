// Package fedlab holds the source of the demo programs, so that the command can
// build their images wherever it runs. The library is in package lab.
package fedlab

import "embed"

// Source is what the demo programs below apps/ are built from: their folders, and
// those of the library that they share with who speaks to them.
//
//go:embed go.mod go.sum apps lab/synthetic/*.go lab/traffic/*.go
var Source embed.FS
