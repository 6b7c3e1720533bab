// Package fedlab holds the source of the demo programs, so that the command can
// build their images wherever it runs. The library is in package lab.
package fedlab

import "embed"

// Source is what the demo programs below apps/ are built from.
//
//go:embed go.mod go.sum apps
var Source embed.FS
