// A writer in Go with lib/pq, as a service would have one: groups of rows stay equal in every transaction.
//
//	writer URL SCHEMA NAME TRANSACTIONS
package main

import (
	"database/sql"
	"fmt"
	"hash/fnv"
	"log"
	"math/rand"
	"os"
	"strconv"

	"github.com/lib/pq"
)

const insert = `INSERT INTO inventory (merchant_id, branch_id, id, name, reorder_level_milli) VALUES ('m', $1, $2, 'x', 1000)`
const update = `UPDATE inventory SET reorder_level_milli = reorder_level_milli + 1000 WHERE merchant_id = 'm' AND branch_id = $1 AND id = $2`
const upsert = insert + ` ON CONFLICT (merchant_id, branch_id, id) DO UPDATE SET reorder_level_milli = inventory.reorder_level_milli + 1000`

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func each(tx *sql.Tx, statement, branch, group string, members ...int) {
	prepared, err := tx.Prepare(statement)
	must(err)
	for _, member := range members {
		_, err := prepared.Exec(branch, fmt.Sprintf("%s-%d", group, member))
		must(err)
	}
	must(prepared.Close())
}

func copyIn(tx *sql.Tx, branch, group string) {
	rows, err := tx.Prepare(pq.CopyIn("inventory", "merchant_id", "branch_id", "id", "name", "reorder_level_milli"))
	must(err)
	for member := 1; member <= 3; member++ {
		_, err := rows.Exec("m", branch, fmt.Sprintf("%s-%d", group, member), "x", 1000)
		must(err)
	}
	_, err = rows.Exec()
	must(err)
	must(rows.Close())
}

func main() {
	url, schema, name := os.Args[1], os.Args[2], os.Args[3]
	transactions, err := strconv.Atoi(os.Args[4])
	must(err)
	db, err := sql.Open("postgres", url+"?sslmode=disable&search_path="+schema)
	must(err)
	seed := fnv.New64()
	seed.Write([]byte(name))
	chance := rand.New(rand.NewSource(int64(seed.Sum64())))
	for n := 0; n < transactions; n++ {
		branch, group := string("abc"[chance.Intn(3)]), fmt.Sprintf("g%d", chance.Intn(4))
		own := fmt.Sprintf("%s.%d", name, n)
		tx, err := db.Begin()
		must(err)
		each(tx, insert, branch, own, 1, 2)
		_, err = tx.Exec(`SELECT pg_advisory_xact_lock(hashtext($1))`, branch+"/"+group)
		must(err)
		switch chance.Intn(4) {
		case 0:
			each(tx, upsert, branch, group, 1, 2, 3)
		case 1:
			copyIn(tx, branch, "copy."+own)
		default:
			each(tx, update, branch, group, 1, 2, 3)
		}
		each(tx, insert, branch, own, 3)
		if chance.Intn(10) == 0 {
			must(tx.Rollback())
		} else {
			must(tx.Commit())
		}
	}
}
