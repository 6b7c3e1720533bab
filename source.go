// Package fedlab holds what the command carries along from the checkout: the
// source of the demo programs, to build their images wherever it runs, and the
// document on troubles. The library is in package lab.
package fedlab

import "embed"

// Source is what the demo programs below apps/ are built from: their folders, and
// those of the library that they share with it.
//
//go:embed go.mod go.sum apps lab/synthetic/*.go lab/traffic/*.go lab/web/*.go
var Source embed.FS

// Troubles is the document on what goes wrong and what to do about it.
//
//go:embed docs/troubleshooting.md
var Troubles string
