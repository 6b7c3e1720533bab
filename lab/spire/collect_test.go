package spire

import (
	"errors"
	"slices"
	"testing"
)

func TestCollect(t *testing.T) {
	pages := map[string]struct {
		items []int
		next  string
	}{
		"":  {[]int{1, 2}, "a"},
		"a": {nil, "b"},
		"b": {[]int{3}, ""},
	}
	got, err := collect(func(token string) ([]int, string, error) {
		page := pages[token]
		return page.items, page.next, nil
	})
	if want := []int{1, 2, 3}; err != nil || !slices.Equal(got, want) {
		t.Errorf("collected %v, %v; want %v", got, err, want)
	}

	broken := errors.New("broken")
	got, err = collect(func(token string) ([]int, string, error) {
		if token == "" {
			return []int{1}, "a", nil
		}
		return nil, "", broken
	})
	if !errors.Is(err, broken) || got != nil {
		t.Errorf("collected %v, %v; want nothing, %v", got, err, broken)
	}
}
