// The backend of the guide: its handler is the one that the page shows, this is what a reader has around it. The first answer to every delivery is lost.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	gosync "sync"

	_ "github.com/lib/pq"
)

var secret []byte
var db *sql.DB

func inTransaction(ctx context.Context, work func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := work(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}

// book takes what was sold from the stock, or refuses.
func book(tx *sql.Tx, body []byte) string {
	var delivery struct {
		Operation struct {
			Lines []struct {
				Product  string `json:"product_id"`
				Quantity string `json:"quantity"`
			} `json:"lines"`
		} `json:"operation"`
	}
	if err := json.Unmarshal(body, &delivery); err != nil {
		return `{"verdict":"rejected","code":"unreadable"}`
	}
	for _, line := range delivery.Operation.Lines {
		done, err := tx.Exec("UPDATE products SET stock = stock - $1 WHERE id = $2 AND stock >= $1", line.Quantity, line.Product)
		if err != nil {
			panic(err)
		}
		if count, _ := done.RowsAffected(); count == 0 {
			return `{"verdict":"rejected","code":"out_of_stock"}`
		}
	}
	return `{"verdict":"accepted"}`
}

var mutex gosync.Mutex
var lost = map[string]bool{}

// The connection breaks after the work was done, once for each operation.
func loses(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		mutex.Lock()
		again := lost[key]
		lost[key] = true
		mutex.Unlock()
		if again {
			next(w, r)
			return
		}
		next(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

func main() {
	file, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	secret = []byte(strings.TrimSpace(string(file)))
	if db, err = sql.Open("postgres", os.Args[1]+"?sslmode=disable"); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("http://%s/sync\n", listener.Addr())
	log.Fatal(http.Serve(listener, loses(sync)))
}
