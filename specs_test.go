package fedlab_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"testing"
)

// TestFirstSpecsLeaveTimeForBeforeAll: Ginkgo counts BeforeAll into the SpecTimeout of the
// first spec after it, so that a lab which comes up there has the time of one spec. The first
// spec has a NodeTimeout, which counts the spec alone.
func TestFirstSpecsLeaveTimeForBeforeAll(t *testing.T) {
	files, err := filepath.Glob("e2e/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	containers := 0
	for _, name := range files {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		found, wrong := firstSpecs(file)
		containers += found
		for _, at := range wrong {
			t.Errorf("%s: the first spec after BeforeAll has a SpecTimeout, want a NodeTimeout", set.Position(at))
		}
	}
	if containers < 10 {
		t.Errorf("%d containers with BeforeAll were found: the test looks past them", containers)
	}
}

func TestAFirstSpecWithSpecTimeoutIsSeen(t *testing.T) {
	const container = `package e2e
var _ = Describe("a lab", Ordered, func() {
	BeforeAll(func(ctx SpecContext) {}, NodeTimeout(time.Minute))
	Describe("inside", func() { It("comes up", func(ctx SpecContext) {}, SpecTimeout(time.Minute)) })
	It("goes", func(ctx SpecContext) {}, NodeTimeout(time.Minute))
})`
	file, err := parser.ParseFile(token.NewFileSet(), "container.go", container, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if found, wrong := firstSpecs(file); found != 1 || len(wrong) != 1 {
		t.Errorf("%d containers, %d wrong, want one of each", found, len(wrong))
	}
}

// firstSpecs returns how many containers have a BeforeAll, and where the first spec of one has
// a SpecTimeout.
func firstSpecs(file *ast.File) (containers int, wrong []token.Pos) {
	ast.Inspect(file, func(n ast.Node) bool {
		body, is := n.(*ast.BlockStmt)
		if !is || !hasBeforeAll(body) {
			return true
		}
		containers++
		first := callOf(body, "It", "Entry")
		if first == nil {
			return true
		}
		if limit := callOf(first, "SpecTimeout"); limit != nil {
			wrong = append(wrong, limit.Pos())
		}
		return true
	})
	return containers, wrong
}

func hasBeforeAll(body *ast.BlockStmt) bool {
	for _, s := range body.List {
		e, is := s.(*ast.ExprStmt)
		if !is {
			continue
		}
		if call, is := e.X.(*ast.CallExpr); is && named(call, "BeforeAll") {
			return true
		}
	}
	return false
}

// callOf returns the first call of one of these functions below a node.
func callOf(below ast.Node, names ...string) (first *ast.CallExpr) {
	ast.Inspect(below, func(n ast.Node) bool {
		if call, is := n.(*ast.CallExpr); is && first == nil && named(call, names...) {
			first = call
		}
		return first == nil
	})
	return first
}

func named(call *ast.CallExpr, names ...string) bool {
	called, is := call.Fun.(*ast.Ident)
	return is && slices.Contains(names, called.Name)
}
