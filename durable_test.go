package fedlab_test

import (
	"go/ast"
	"testing"
)

// renamesUnsynced are functions that rename what they have not brought to the
// disk, by their file and name, each with the reason why that is right.
func renamesUnsynced() map[string]string {
	return map[string]string{
		"lab/images/build/module.go Fill":     "it names programs inside of an artifact, which is synced as a whole before it gets its own name",
		"lab/host/local.go Rename":            "it is the call itself, for those who sync before",
		"lab/host/ociruntime/main.go rewrite": "a container's configuration does not outlive the machine's next start",
		"apps/serving-cert/keeper.go replace": "the folder is in memory",
		"apps/postgres/server.go make":        "a database of the demo is made again",
	}
}

// A file that gets its name before it is on the disk is empty after a power cut,
// under a name that vouches for all of it. Which function forgot cannot be seen
// without one, so that its source is read.
func TestFilesAreOnTheDiskBeforeTheyGetTheirName(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			var before bool
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				switch name := called(call); {
				case name == "Sync" || name == "syncTree":
					before = true
				case name == "os.Rename" && !before:
					if renamesUnsynced()[s.name+" "+f.Name.Name] == "" {
						t.Errorf("%s: %s gives a file its name, and has not brought it to the disk", s.name, f.Name.Name)
					}
				}
				return true
			})
		}
	}
}

// called is the name of the function or method that is called; one of a package
// os keeps the package's name.
func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if of, ok := f.X.(*ast.Ident); ok && of.Name == "os" {
			return "os." + f.Sel.Name
		}
		return f.Sel.Name
	}
	return ""
}
